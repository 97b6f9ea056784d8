//! One connection: two directions, each a reader and a writer with a short queue between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::{Tap, Trouble};

/// The most that is read at a time.
const PIECE: usize = 64 * 1024;

/// So many pieces may be under way; beyond it whoever sends is held back, as by a full window.
const UNDER_WAY: usize = 64;

/// Lets a connection end by a reset instead of in order.
pub(crate) fn reset(stream: &TcpStream) {
    // It ends anyway, if not so rudely.
    let _ = stream.set_zero_linger();
}

/// Carries both directions until an end closes the connection, the way is cut, or it is gone.
pub(crate) async fn both(mut near: TcpStream, mut far: TcpStream, tap: Option<Tap>, seen: watch::Receiver<Trouble>) {
    let (_, _) = (near.set_nodelay(true), far.set_nodelay(true));
    let lost = AtomicBool::new(false);
    {
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let to_server = one(near_read, far_write, tap, &lost, seen.clone());
        let to_client = one(far_read, near_write, None, &lost, seen.clone());
        let carried = async { tokio::join!(to_server, to_client) };
        tokio::select! {
            _ = carried => return,
            () = is_cut(seen) => {}
        }
    }
    reset(&near);
    reset(&far);
}

/// Until the way is cut, or gone.
async fn is_cut(mut seen: watch::Receiver<Trouble>) {
    // An error is the way's end, too.
    let _ = seen.wait_for(|trouble| *trouble == Trouble::Cut).await;
}

/// Carries one direction to its end, and hands that on.
async fn one(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut tap: Option<Tap>,
    lost: &AtomicBool,
    mut seen: watch::Receiver<Trouble>,
) {
    let (sender, mut queue) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let mut writes_seen = seen.clone();
    let reads = async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            let ended = !matches!(from.read_buf(&mut piece).await, Ok(1..));
            let trouble = *seen.borrow_and_update();
            if trouble == Trouble::BlackHole {
                lost.store(true, Ordering::Relaxed);
            }
            if ended {
                if lost.load(Ordering::Relaxed) {
                    // The other end does not hear of it before the hole is gone.
                    let _ = seen.wait_for(|trouble| *trouble != Trouble::BlackHole).await;
                }
                return;
            }
            if lost.load(Ordering::Relaxed) {
                continue;
            }
            if let Some(tap) = &mut tap {
                tap(&piece);
            }
            let due = match trouble {
                Trouble::Delay(delay) => Instant::now() + delay,
                Trouble::None | Trouble::Cut | Trouble::BlackHole | Trouble::Throttle(_) => Instant::now(),
            };
            if sender.send((due, piece.freeze())).await.is_err() {
                return;
            }
        }
    };
    let writes = async move {
        while let Some((due, piece)) = queue.recv().await {
            tokio::time::sleep_until(due).await;
            // Looked at once: a look that lasts would hold whoever changes it.
            let trouble = *writes_seen.borrow_and_update();
            if trouble == Trouble::BlackHole {
                lost.store(true, Ordering::Relaxed);
            }
            if lost.load(Ordering::Relaxed) {
                continue;
            }
            for part in piece.chunks(slice(trouble)) {
                if to.write_all(part).await.is_err() {
                    return;
                }
                if let Trouble::Throttle(rate) = trouble {
                    tokio::time::sleep(Duration::from_secs(1) * length(part) / rate.max(1)).await;
                }
            }
        }
        // The other end may go on sending.
        let _ = to.shutdown().await;
    };
    tokio::join!(reads, writes);
}

/// How much is written at once: a tenth of a second's worth where the way is throttled.
fn slice(trouble: Trouble) -> usize {
    match trouble {
        Trouble::Throttle(rate) => usize::try_from(rate / 10).unwrap_or(PIECE).clamp(1, PIECE),
        Trouble::None | Trouble::Cut | Trouble::BlackHole | Trouble::Delay(_) => PIECE,
    }
}

fn length(part: &[u8]) -> u32 {
    u32::try_from(part.len()).expect("a piece is short")
}
