//! Protections that can be switched off, so that tests can show what each is for.
//!
//! Without the cargo feature `faults`, which no release build enables, every switch is the constant `false`.

/// One protection of the lane, by the damage that its absence does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The library assigns partitions by itself, without explicit offsets.
    LibraryRebalance,
    /// A restore reads to the stable end only, whatever hangs above it.
    StableEndOnly,
    /// Offsets are sent for partitions that moved only, not for all that a transaction touches.
    MovedOffsetsOnly,
    /// Partitions that have not moved are sent with an invalid offset.
    InvalidOffsets,
    /// Records are not drained before the transaction commits.
    NoDrain,
    /// Ownership is not checked before the transaction commits.
    NoOwnershipCheck,
    /// Offsets are committed by the consumer, before the transaction and outside of it.
    OffsetsOutside,
    /// No protection is off, but each transaction takes long, so that a kill is likely to hit one.
    Dawdle,
    /// No protection is off, but the first transaction never comes to its end: the lane is stuck.
    Hang,
}

/// A place in the life of a transaction where a test may hold the lane, or let it die by a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Its records are written, and it is known that the partitions are ours; no offset is sent yet.
    Checked,
    /// Its offsets are sent; it is not committed yet.
    Sent,
}

/// Which protections of a lane are off, and where it is held.
#[derive(Clone, Default)]
pub struct Faults {
    #[cfg(feature = "faults")]
    bits: u32,
    /// The transaction of the process that kills it, before it is committed.
    #[cfg(feature = "faults")]
    die_at: Option<u32>,
    #[cfg(feature = "faults")]
    hook: Option<std::sync::Arc<dyn Fn(Point) + Send + Sync>>,
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[cfg(feature = "faults")]
        return write!(f, "Faults({:#b})", self.bits);
        #[cfg(not(feature = "faults"))]
        return f.write_str("Faults");
    }
}

#[cfg(not(feature = "faults"))]
impl Faults {
    /// None: the feature is not compiled in.
    pub(crate) const fn from_environment() -> Self {
        Self {}
    }

    /// Never.
    pub(crate) const fn has(&self, _: Fault) -> bool {
        false
    }

    /// Nobody holds a lane.
    pub(crate) const fn reach(&self, _: Point) {}
}

#[cfg(feature = "faults")]
impl Faults {
    /// The environment variable that names faults, separated by commas, for processes under test. `die-at-7` ends the
    /// process in its seventh transaction.
    pub const VARIABLE: &'static str = "KAFKA_FAULTS";

    const NAMES: [(&'static str, Fault); 9] = [
        ("library-rebalance", Fault::LibraryRebalance),
        ("stable-end-only", Fault::StableEndOnly),
        ("moved-offsets-only", Fault::MovedOffsetsOnly),
        ("invalid-offsets", Fault::InvalidOffsets),
        ("no-drain", Fault::NoDrain),
        ("no-ownership-check", Fault::NoOwnershipCheck),
        ("offsets-outside", Fault::OffsetsOutside),
        ("dawdle", Fault::Dawdle),
        ("hang", Fault::Hang),
    ];

    /// All that the environment names.
    ///
    /// # Panics
    /// On a name that is no fault: a test that meant to break something must not pass for a typing error.
    pub fn from_environment() -> Self {
        let names = std::env::var(Self::VARIABLE).unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty()).fold(Self::default(), |faults, name| {
            if let Some(number) = name.strip_prefix("die-at-") {
                let number = number.parse().unwrap_or_else(|_| panic!("`{name}` in {} is no number", Self::VARIABLE));
                return Self { die_at: Some(number), ..faults };
            }
            let known = Self::NAMES.iter().find(|(known, _)| *known == name);
            let (_, fault) = known.unwrap_or_else(|| panic!("`{name}` in {} is no fault", Self::VARIABLE));
            faults.with(*fault)
        })
    }

    /// The same with this protection off, too.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.bits |= 1 << fault as u32;
        self
    }

    /// The same, calling `hook` on the lane's thread wherever it may be held.
    #[must_use]
    pub fn holding(mut self, hook: impl Fn(Point) + Send + Sync + 'static) -> Self {
        self.hook = Some(std::sync::Arc::new(hook));
        self
    }

    /// Tells the hook where the lane is.
    pub(crate) fn reach(&self, point: Point) {
        if self.has(Fault::Dawdle) && point == Point::Checked {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        if let (Some(die_at), Point::Checked) = (self.die_at, point) {
            static REACHED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            if REACHED.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 >= die_at {
                // As by SIGKILL: nothing is tidied up.
                std::process::abort();
            }
        }
        while self.has(Fault::Hang) && point == Point::Checked {
            std::thread::park();
        }
        if let Some(hook) = &self.hook {
            hook(point);
        }
    }

    /// Whether this protection is off.
    pub const fn has(&self, fault: Fault) -> bool {
        self.bits & 1 << fault as u32 != 0
    }
}
