//! users.watch and users.stop.

use axum::body::Bytes;
use axum::extract::Path;
use axum::response::Response;
use http::{StatusCode, header};

use super::api::Shared;
use super::asked::{Asked, answer};
use crate::error::ApiError;
use crate::fields;
use crate::json::Writer;
use crate::quota::Method;
use crate::watch::Request;

/// POST watch
pub(crate) async fn watch(world: Shared, Path(user): Path<String>, asked: Asked, body: Bytes) -> Response {
    answer(&world, Method::Watch, &user, &asked, |call| {
        let mask = call.params.mask(&fields::WATCH)?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        let request: Request = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid_argument(format!("Invalid JSON payload received. {error}")))?;
        let mut watch = call.account.watch();
        let new = request.watch(watch.as_ref(), call.now_ms)?;
        let ends_ms = new.ends_ms;
        *watch = Some(new);
        drop(watch);
        // A watch that was set is told of at once.
        world.pushes.changed(&call.account, call.now_ms);
        let mut writer = Writer::new(128, call.params.pretty(), &mask);
        writer.object(|o| {
            o.long_field("historyId", call.account.mailbox().head());
            o.long_field("expiration", ends_ms);
        });
        Ok(writer.finish())
    })
    .await
}

/// POST stop
pub(crate) async fn stop(world: Shared, Path(user): Path<String>, asked: Asked) -> Response {
    let mut response = answer(&world, Method::Stop, &user, &asked, |call| {
        *call.account.watch() = None;
        Ok(Vec::new())
    })
    .await;
    if response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}
