//! HTTP: aircraft and cluster as JSON, from any node.

use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use otava::{AskError, ClusterState, Entities, Node, Status};
use serde::Deserialize;
use serde_json::json;

use super::aircraft::{Command, Recorded};
use super::flight::{Flight, FlightFields, check_tail_number};
use super::tally::Tally;
use super::view::{ClusterView, MemberView};

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 16 << 10;
/// A command that is not answered by then is given up, and the caller told to try again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct App {
    node: Node,
    aircraft: Entities<Command>,
}

/// The routes of a node.
pub(crate) fn app(node: Node, aircraft: Entities<Command>) -> Router {
    Router::new()
        .route("/aircraft/{tail}", get(state_of))
        .route("/aircraft/{tail}/flights", post(record))
        .route("/cluster", get(cluster))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(App { node, aircraft })
}

/// An answer other than 2xx: what is wrong, as JSON.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

fn bad_request(error: impl ToString) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.to_string())
}

fn unavailable(error: AskError) -> Refusal {
    let text = format!("no answer, try again: {error}");
    Refusal(StatusCode::SERVICE_UNAVAILABLE, text)
}

/// `GET /aircraft/N14228`
async fn state_of(State(app): State<App>, Path(tail): Path<String>) -> Result<Response, Refusal> {
    check_tail_number(&tail).map_err(bad_request)?;
    let aircraft = app.aircraft.entity(&tail);
    let tally = aircraft
        .ask(|reply_to| Command::Get { reply_to })
        .within(ANSWER_WITHIN)
        .await
        .map_err(unavailable)?;
    if tally == Tally::default() {
        let text = format!("no flight of {tail} is known");
        return Err(Refusal(StatusCode::NOT_FOUND, text));
    }
    Ok(Json(state_as_json(&tail, &tally)).into_response())
}

fn state_as_json(tail: &str, tally: &Tally) -> serde_json::Value {
    json!({
        "tailnum": tail,
        "flights": tally.flights,
        "cancelled": tally.cancelled,
        "miles": tally.miles,
        "arr_delay_sum": tally.arr_delay_sum,
    })
}

/// The body of a recorded flight: the columns of the file. A cancelled flight has no `dep_delay`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlightBody {
    year: i64,
    month: i64,
    day: i64,
    sched_dep_time: i64,
    #[serde(default)]
    dep_delay: Option<i64>,
    #[serde(default)]
    arr_delay: Option<i64>,
    carrier: String,
    flight: i64,
    #[serde(default)]
    tailnum: Option<String>,
    origin: String,
    /// Part of the file, and of no sum.
    #[serde(default, rename = "dest")]
    _dest: Option<String>,
    distance: i64,
}

/// `POST /aircraft/N14228/flights`: answers when the flight is durable, 201 if it is new and 200 if
/// it was known before.
async fn record(
    State(app): State<App>,
    Path(tail): Path<String>,
    body: Result<Json<FlightBody>, JsonRejection>,
) -> Result<Response, Refusal> {
    check_tail_number(&tail).map_err(bad_request)?;
    let Json(body) = body.map_err(|error| Refusal(error.status(), error.body_text()))?;
    if body.tailnum.as_ref().is_some_and(|named| *named != tail) {
        return Err(bad_request("the body names another tailnum than the path"));
    }
    let fields = FlightFields {
        year: body.year,
        month: body.month,
        day: body.day,
        sched_dep_time: body.sched_dep_time,
        dep_delay: body.dep_delay,
        arr_delay: body.arr_delay,
        carrier: &body.carrier,
        flight: body.flight,
        origin: &body.origin,
        distance: body.distance,
    };
    let flight = Flight::try_from(fields).map_err(bad_request)?;
    let aircraft = app.aircraft.entity(&tail);
    let recorded = aircraft
        .ask(|reply_to| Command::Record { flight, reply_to })
        .within(ANSWER_WITHIN)
        .await
        .map_err(unavailable)?;
    let (status, new) = match recorded {
        Recorded::Now => (StatusCode::CREATED, true),
        Recorded::Before => (StatusCode::OK, false),
    };
    Ok((status, Json(json!({ "tailnum": tail, "new": new }))).into_response())
}

/// `GET /cluster`
async fn cluster(State(app): State<App>) -> Json<ClusterView> {
    let state = app.node.state();
    let name = |node: &otava::NodeId| node.name.to_string();
    let homes = app.aircraft.homes();
    Json(ClusterView {
        node: name(app.node.id()),
        members: members(&state),
        leader: state.leader.as_ref().map(name),
        oldest: state.oldest().map(|member| name(&member.id)),
        unreachable: state.unreachable.iter().map(name).collect(),
        converged: state.converged,
        shards: homes
            .into_iter()
            .map(|(shard, home)| (shard, home.as_ref().map(name)))
            .collect(),
    })
}

fn members(state: &ClusterState) -> Vec<MemberView> {
    let mut members: Vec<_> = state.members.values().collect();
    members.sort_by_key(|member| (member.age.unwrap_or(u64::MAX), member.id.clone()));
    let view = |member: &&otava::Member| MemberView {
        name: member.id.name.to_string(),
        address: member.id.addr.to_string(),
        incarnation: format!("{:016x}", member.id.incarnation),
        status: status(member.status).to_owned(),
    };
    members.iter().map(view).collect()
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Joining => "joining",
        Status::Up => "up",
        Status::Leaving => "leaving",
        Status::Exiting => "exiting",
        Status::Down => "down",
        _ => "removed",
    }
}
