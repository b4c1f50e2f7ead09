//! What can be seen of a wallet in the ledger, in Redis and through the API, beside what the model says.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use billing_service::ledger;
use testkit::eventually;

use super::state::{End, Stage};
use super::world::{Side, World};

impl World<'_> {
    /// Everything that can be seen of both wallets.
    pub async fn compare(&self) -> Result<()> {
        for side in &self.sides {
            self.compare_one(side).await.with_context(|| format!("{:?}", side.model))?;
        }
        Ok(())
    }

    async fn compare_one(&self, side: &Side) -> Result<()> {
        let (database, organization, model) = (&self.app.database.owner, side.organization.uuid(), &side.model);
        let ended = model.requests.iter().filter(|request| matches!(request.stage, Stage::Settled | Stage::Abandoned)).count();
        let rows = "select count(*), coalesce(sum(price_micros), 0)::bigint from usage_events where organization_id = $1";
        let posted = async || sqlx::query_as::<_, (i64, i64)>(rows).bind(organization).fetch_one(database).await;
        let all = eventually("the postings", || async { posted().await.ok().filter(|(rows, _)| usize::try_from(*rows) == Ok(ended)) });
        let Ok((_, charged)) = tokio::time::timeout(Duration::from_secs(5), all).await else {
            bail!("{:?} are posted instead of {ended} rows", posted().await?)
        };
        ensure!(charged == model.requests.iter().map(|request| request.price).sum::<i64>(), "usage: {charged}");
        let balances = ledger::balances(database, side.organization).await?.context("accounts")?;
        ensure!((balances.wallet, balances.held, balances.debt) == (model.credit, model.held, model.debt), "ledger: {balances:?}");
        let lots = "select remaining_micros from grants where organization_id = $1 order by position";
        let lots: Vec<i64> = sqlx::query_scalar(lots).bind(organization).fetch_all(database).await?;
        ensure!(lots == model.lots.iter().map(|lot| lot.remaining).collect::<Vec<_>>(), "lots: {lots:?}");
        let leases = "select state, held_micros, funded_micros from leases where organization_id = $1 order by epoch";
        let leases: Vec<(String, i64, i64)> = sqlx::query_as(leases).bind(organization).fetch_all(database).await?;
        let named = |end| match end {
            End::Open => "open",
            End::Draining(_) => "draining",
            End::Closed => "closed",
        };
        let expected = model.leases.iter().map(|lease| (named(lease.end).to_owned(), lease.held, lease.funded));
        ensure!(leases == expected.collect::<Vec<_>>(), "leases: {leases:?}");
        for (large, of) in [(false, None), (true, Some("sim-large"))] {
            let remaining = self.app.admissions.remaining(side.organization, of).await?.map(|(_, remaining)| remaining);
            ensure!(remaining == model.open(large).map(|at| model.leases[at].remaining), "Redis has {remaining:?} for {of:?}");
        }
        let house =
            "select a.kind, sum(e.amount_micros)::bigint from ledger_transactions t join ledger_entries e on e.transaction_id = t.id
            join accounts a on a.id = e.account_id where t.organization_id = $1 and a.organization_id is null
            and a.kind not in ('provider_cost', 'provider_payable', 'transfers') group by a.kind having sum(e.amount_micros) <> 0";
        let house: BTreeMap<String, i64> = sqlx::query_as(house).bind(organization).fetch_all(database).await?.into_iter().collect();
        let expected = model.house.iter().filter(|(_, amount)| **amount != 0).map(|(account, amount)| ((*account).to_owned(), *amount));
        ensure!(house == expected.collect(), "the house has {house:?}");
        let open = model.leases.iter().filter(|lease| lease.end == End::Open);
        let unspent: i64 = open.map(|lease| lease.remaining.clamp(0, lease.held)).sum();
        let expired: i64 = model.expiring().iter().map(|(_, amount)| amount).sum();
        let shown = self.app.balance(&side.client).await;
        self.compare_plan(side).await?;
        ensure!(shown == (model.credit - model.debt - expired + unspent, model.held - unspent), "shown: {shown:?}");
        Ok(())
    }
}
