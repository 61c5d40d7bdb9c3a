//! HTTP: carts and the report as JSON.

use super::Shop;
use super::cart::{Command, Line};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

/// The largest body that is read, in bytes.
const BODY_MAX: usize = 4 << 10;

pub(crate) fn routes(shop: Shop) -> Router {
    Router::new()
        .route("/carts/{id}/lines", post(add))
        .route("/carts/{id}/checkout", post(check_out))
        .route("/report", get(report))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(shop)
}

fn unavailable(error: impl ToString) -> Response {
    let text = format!("no answer, try again: {}", error.to_string());
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

/// `POST /carts/7/lines` with `{"item": "tea", "pieces": 2, "cents": 350}`; 409 after the checkout.
async fn add(State(shop): State<Shop>, Path(id): Path<String>, Json(line): Json<Line>) -> Response {
    let cart = shop.carts.entity(&id);
    match cart.ask(|reply_to| Command::Add(line, reply_to)).await {
        Ok(0) => (StatusCode::CONFLICT, "it was checked out").into_response(),
        Ok(lines) => Json(json!({ "lines": lines })).into_response(),
        Err(error) => unavailable(error),
    }
}

/// `POST /carts/7/checkout`: what was bought, the same whenever it is asked for.
async fn check_out(State(shop): State<Shop>, Path(id): Path<String>) -> Response {
    match shop.carts.entity(&id).ask(Command::CheckOut).await {
        Ok(lines) => Json(lines).into_response(),
        Err(error) => unavailable(error),
    }
}

/// `GET /report`: pieces and cents by item; some milliseconds behind the carts.
async fn report(State(shop): State<Shop>) -> Response {
    match shop.report.read().await {
        Ok(sold) => Json(sold).into_response(),
        Err(error) => unavailable(error),
    }
}
