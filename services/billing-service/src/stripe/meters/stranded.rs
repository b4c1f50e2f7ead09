//! Reports of a meter that cannot be had at Stripe: what can never be sent does not wait for ever.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::sender::TOO_OLD;
use crate::error::Error;

/// Sets aside what waits for a meter that is not there: all of it when the meter was stopped and nothing can come of it any more, or else
/// what Stripe takes no longer. Each with the reason.
pub(super) async fn set_aside(connection: &mut PgConnection, now: DateTime<Utc>) -> Result<(), Error> {
    let set_aside = sqlx::query!(
        "update stripe_meter_reports r set state = 'parked', claimed_until = null, reason = case
           when m.ended_at is not null then 'stopped: it is kept no longer, and has no meter at Stripe'
           when r.doubt_at is not null then 'unclear: a try may have had its effect, and the meter could not be asked until it was too old'
           else 'too_old: its meter could not be had until Stripe took it no longer' end
         from stripe_meters m where m.id = r.stripe_meter_id and r.state = 'pending' and m.stripe_id is null
           and (m.ended_at is not null and (m.fault is not null or m.ended_at <= $1) or r.dated < $2)",
        now,
        now - TOO_OLD
    );
    let count = set_aside.execute(connection).await?.rows_affected();
    if count > 0 {
        tracing::error!(stripe.meter.reports = count, "reports of usage were set aside: their meter cannot be had at Stripe");
        metrics::counter!("billing_stripe_meter_reports_total", "result" => "parked").increment(count);
    }
    Ok(())
}
