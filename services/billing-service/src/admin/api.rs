//! `/v1/admin/…` on the private listener: what the command line does, for consoles of operators. Closed by default: auth-service gives these
//! scopes to no service until its table of grants says so. Who decides and why is in the body and is logged with the name of the calling
//! service; an `Idempotency-Key` makes a repetition the same decision, for as long as the log is kept, also between here and the terminal.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::http::{Json, Path, Query};
use chassis::idempotency::{HEADER, REPLAYED};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use identity::{CallingService, OrganizationId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ledger::bytes;
use super::replay::{self, Events, Intents, Stream};
use super::wallet::{WalletView, view};
use crate::audit::{self, AuditQuery, AuditRow, Decision};
use crate::budgets::{self, api::Budget};
use crate::catalog::{self, Catalog, Code, apply};
use crate::error::{Error, check_instants};
use crate::grants::{self, WalletChange};
use crate::ledger::{self, checks, export, verify};
use crate::state::AppState;
use crate::subscriptions::moving;

/// The scope that may look.
pub const SCOPE_READ: &str = contracts::billing::SCOPE_ADMIN_READ;
/// The scope that may decide.
pub const SCOPE_WRITE: &str = contracts::billing::SCOPE_ADMIN_WRITE;

/// Who decides and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    actor: String,
    reason: String,
}

/// Refuses a caller without the scope, and makes a decision of what it says.
pub(super) fn decision(
    state: &AppState,
    caller: &CallingService,
    headers: &HeaderMap,
    Reason { actor, reason }: Reason,
) -> Result<Decision, Error> {
    caller.require(SCOPE_WRITE)?;
    let key = headers.get(HEADER).map(|key| key.to_str().ok().filter(|key| (1..=255).contains(&key.len())));
    let Some(key) = key.map_or(Some(None), |key| key.map(|key| Some(key.to_owned()))) else {
        return Err(Problem::invalid_field("Idempotency-Key", "must be 1 to 255 printable ASCII characters").into());
    };
    // Before the service's name makes an empty one look like a name.
    Decision::new(state, actor.as_str(), reason.as_str(), None).check()?;
    Ok(Decision::new(state, format!("{actor} via {}", caller.name), reason, key))
}

/// A list.
#[derive(Debug, Serialize)]
pub struct List<T> {
    /// Its entries.
    pub data: Vec<T>,
}

/// An organization's balances and lots.
pub async fn wallet(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
) -> Result<axum::Json<WalletView>, Error> {
    caller.require(SCOPE_READ)?;
    Ok(axum::Json(view(&state, organization).await?))
}

/// A change of a wallet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changed {
    by: Reason,
    change: WalletChange,
}

/// Grant, adjust, revoke, transfer, give usage back, reconcile, or set an overdraft.
pub async fn change(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
    headers: HeaderMap,
    Json(Changed { by, change }): Json<Changed>,
) -> Result<Response, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    let done = grants::decide(&state, &decision, organization, &change).await?;
    Ok(answered(done.repeated, &json!({"action": change.action(), "after": done.after})))
}

/// An answer that says when it is that of an earlier call.
pub(super) fn answered(repeated: bool, body: &Value) -> Response {
    let mut response = axum::Json(body).into_response();
    if repeated {
        response.headers_mut().insert(REPLAYED, header::HeaderValue::from_static("true"));
    }
    response
}

/// What an organization wants to spend at most.
pub async fn budgets(
    State(state): State<AppState>,
    caller: CallingService,
    Path(organization): Path<OrganizationId>,
) -> Result<axum::Json<List<Budget>>, Error> {
    caller.require(SCOPE_READ)?;
    let mut connection = state.pool.acquire().await?;
    Ok(axum::Json(List { data: budgets::store::list(&mut connection, organization).await? }))
}

/// What operators decided, newest first.
pub async fn log(
    State(state): State<AppState>,
    caller: CallingService,
    Query(query): Query<AuditQuery>,
) -> Result<axum::Json<List<AuditRow>>, Error> {
    caller.require(SCOPE_READ)?;
    Ok(axum::Json(List { data: audit::list(&state.pool, &query).await? }))
}

/// Which seal was kept, if one was.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyQuery {
    expect: Option<String>,
}

/// Checks the ledger. It may take longer than an answer may begin, so the answer begins at once and its body comes when it is known.
pub async fn verify(State(state): State<AppState>, caller: CallingService, Query(query): Query<VerifyQuery>) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    let malformed = |_| Problem::invalid_field("expect", "must be 64 hexadecimal digits");
    let expected = query.expect.as_deref().map(bytes).transpose().map_err(malformed)?;
    Ok(later(async move {
        let mut lines = Vec::new();
        let summary = checks::check(&state, &state.pool, expected.as_deref(), |line| {
            if lines.len() < verify::LINES {
                lines.push(line);
            }
        })
        .await?;
        let clean = summary.differences == 0 && (expected.is_none() || summary.has_expected);
        Ok(
            json!({"clean": clean, "transactions": summary.sealed, "seals": summary.seals, "head": audit::hex(&summary.head), "has_expected": summary.has_expected,
            "differences": summary.differences, "lines": lines}),
        )
    }))
}

/// A body that comes when it is known; when it does not, the connection breaks off.
pub(super) fn later(answer: impl Future<Output = Result<Value, Error>> + Send + 'static) -> Response {
    let body = async {
        answer.await.map(|answer| answer.to_string()).inspect_err(|error| tracing::error!(error.message = error.chain(), "failed"))
    };
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(futures::stream::once(body))).into_response()
}

/// Which instant; now, if absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instant {
    at: Option<DateTime<Utc>>,
}

/// What every account had, and credit by where it came from. The answer begins at once.
pub async fn trial_balance(State(state): State<AppState>, caller: CallingService, Query(of): Query<Instant>) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    let at = of.at.unwrap_or_else(|| state.clock.now());
    check_instants(&[at])?;
    Ok(later(async move { Ok(json!(ledger::trial_balance::trial_balance(&state.pool, at).await?)) }))
}

/// A period.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Period {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
}

/// The journal of a period as CSV.
pub async fn journal(State(state): State<AppState>, caller: CallingService, Query(period): Query<Period>) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    check_instants(&[period.from, period.to])?;
    let chunks = export::chunks(state.pool.clone(), period.from, period.to);
    Ok(([(header::CONTENT_TYPE, "text/csv; charset=utf-8")], Body::from_stream(chunks)).into_response())
}

/// All that is wrong with a file.
pub(super) fn refused(faults: impl Iterator<Item = (String, String)>) -> Error {
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "The request is not valid");
    faults.fold(problem, |problem, (field, rule)| problem.field(field, rule)).into()
}

/// What to bring back: events of Stripe, or what we want of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayStripe {
    by: Reason,
    events: Option<Events>,
    intents: Option<Intents>,
}

/// Brings events of Stripe back that were set aside, or wishes that it refused.
pub async fn replay_stripe(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(ReplayStripe { by, events, intents }): Json<ReplayStripe>,
) -> Result<axum::Json<Value>, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    Ok(axum::Json(match (events, intents) {
        (Some(events), None) => json!({"event_ids": replay::events(&state, &decision, &events).await?}),
        (None, Some(intents)) => json!({"intent_ids": replay::intents(&state, &decision, &intents).await?}),
        _ => return Err(Problem::invalid_field("events", "must be said, or intents, and not both").into()),
    }))
}

/// A stream whose messages are to come back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayMessages {
    by: Reason,
    stream: Stream,
}

/// Brings messages of a stream back that were set aside.
pub async fn replay_messages(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(ReplayMessages { by, stream }): Json<ReplayMessages>,
) -> Result<axum::Json<Value>, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    Ok(axum::Json(json!({"messages": replay::messages(&state, &decision, stream).await?})))
}

/// A catalogue.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogFile {
    /// Who and why; nothing is applied without.
    by: Option<Reason>,
    /// The YAML.
    catalog: String,
    /// `planned_on` of the answer without `by`.
    planned_on: Option<String>,
}

/// Says what applying a catalogue would change and on what; with who, why and that, applies it.
pub async fn catalog(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(body): Json<CatalogFile>,
) -> Result<axum::Json<Value>, Error> {
    caller.require(SCOPE_READ)?;
    let wanted: Catalog = catalog::parse(&body.catalog)
        .map_err(|invalid| refused(invalid.0.into_iter().map(|fault| (format!("catalog.{}", fault.path), fault.rule))))?;
    let Some(by) = body.by else {
        let planned = apply::plan(&state, &wanted).await?;
        return Ok(axum::Json(json!({"applied": false, "changes": planned.text, "planned_on": planned.stored})));
    };
    let decision = decision(&state, &caller, &headers, by)?;
    let planned_on = body.planned_on.ok_or_else(|| Problem::invalid_field("planned_on", "must be the one of the plan"))?;
    let applied = apply::apply(&state, &wanted, &planned_on, &decision).await.map_err(|error| match error {
        apply::ApplyError::Failed(error) => error,
        apply::ApplyError::Database(error) => error.into(),
        apply::ApplyError::Changed { .. } => Problem::conflict("catalog_changed", "The stored catalogue changed since the plan").into(),
        regrouped @ apply::ApplyError::Regrouped(_) => refused(std::iter::once(("catalog".to_owned(), regrouped.to_string()))),
    })?;
    Ok(axum::Json(json!({"applied": true, "changes": applied.text, "version": applied.version})))
}

/// A plan whose customers are to be moved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MovePlan {
    by: Reason,
    plan: Code,
}

/// Moves who is on an older version of a plan to the one that is sold now. The answer begins at once, as that of [`verify`].
pub async fn move_plan(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(MovePlan { by, plan }): Json<MovePlan>,
) -> Result<Response, Error> {
    let decision = decision(&state, &caller, &headers, by)?;
    let decided = moving::decide(&state, decision, &plan).await?;
    Ok(later(async move { decided.carry_out(&state).await.map(|moved| json!(moved)) }))
}
