//! A customer whose books agree with Stripe's, to be put out of order in one way each.

use std::time::Duration;

use billing_service::admin::reconcile::{self as command, Reconcile};
use billing_service::stripe::reconcile::{self, Difference, Report, Severity, repair};
use identity::OrganizationId;
use testkit::http::TestClient;

use super::bent_stripe::Bent;
use super::shop::Shop;

/// The only invoice there is.
pub const INVOICE: &str = "select invoice_id from stripe_invoices";

pub struct Desk {
    pub shop: Shop,
    pub bent: Bent,
    pub organization: OrganizationId,
    pub client: TestClient,
}

/// Somebody with a pack for a hundred dollars.
pub async fn with_a_pack() -> Desk {
    let bent = Bent::default();
    let before = bent.clone();
    let shop = Shop::with(|config| config.stripe.api_base = before.before(config.stripe.api_base.clone())).await;
    let (organization, client) = shop.customer();
    shop.pay(&shop.pack(&client, "large").await.expect(201));
    shop.settle().await;
    Desk { shop, bent, organization, client }
}

/// The same with a plan besides, that was renewed.
pub async fn with_a_plan() -> Desk {
    let desk = Box::pin(with_a_pack()).await;
    desk.shop.pay(&desk.shop.plan(&desk.client, "team").await.expect(201));
    desk.shop.settle().await;
    desk.shop.pass(Duration::from_hours(32 * 24));
    desk.shop.renewed(1).await;
    desk
}

impl Desk {
    /// Later than whatever may be on its way.
    pub async fn compare(&self) -> Report {
        self.shop.pass(Duration::from_mins(20));
        let state = self.shop.app.state();
        reconcile::compare(&state, state.stripe.as_ref().unwrap(), reconcile::GRACE).await.unwrap()
    }

    /// The difference of a kind, that is there once, and beside it are these and no others, which follow from it.
    pub async fn differs(&self, kind: &str, severity: Severity, object: &str, beside: &[&str]) -> Difference {
        let report = self.compare().await;
        let mut found: Vec<&str> = report.differences.iter().map(|one| one.kind).collect();
        found.dedup();
        let mut expected: Vec<&str> = beside.iter().copied().chain([kind]).collect();
        found.sort_unstable();
        found.dedup();
        expected.sort_unstable();
        assert_eq!(found, expected, "{report:#?}");
        let mut of_kind = report.differences.iter().filter(|one| one.kind == kind);
        let one = of_kind.next().unwrap().clone();
        assert!(of_kind.next().is_none(), "{report:#?}");
        assert_eq!((one.severity, one.object.as_str()), (severity, object), "{one:?}");
        assert!(!one.sentence.is_empty());
        one
    }

    /// The same of an error that is of our customer.
    pub async fn is_wrong(&self, kind: &str, object: &str, beside: &[&str]) -> Difference {
        let one = self.differs(kind, Severity::Error, object, beside).await;
        assert_eq!(one.organization, Some(self.organization), "{one:?}");
        one
    }

    /// Somebody decides to repair what is found of it.
    pub async fn repair(&self, object: &str) -> Result<(), String> {
        let (actor, reason) = (Some("ada".into()), Some("a test".into()));
        let command = Reconcile { repair: vec![object.to_owned()], actor, reason, ..Reconcile::default() };
        command::run(command, &self.shop.app.state()).await.map_err(|error| error.to_string())
    }

    /// A repair of it, and nothing else, puts everything right.
    pub async fn is_mended(&self, one: &Difference) {
        assert_eq!(repair::refusal(one, &[]), None);
        self.repair(&one.object).await.unwrap();
        self.shop.settle().await;
        self.agrees().await;
    }

    /// A repair is refused for a reason and changes nothing.
    pub async fn is_refused(&self, one: &Difference) {
        let reason = repair::refusal(one, &[]).unwrap();
        assert!(reason.contains(one.kind) && reason.contains(one.sentence), "{reason}");
        let outcome = self.repair(&one.object).await;
        assert!(outcome.is_err() || one.severity != Severity::Error, "{outcome:?}");
        let after = self.compare().await;
        assert!(after.differences.contains(one), "{after:#?}");
        assert_eq!(self.shop.app.count("select count(*) from audit_log where action = 'stripe.repair'").await, 0);
    }

    /// Both say the same again.
    pub async fn agrees(&self) {
        let report = self.compare().await;
        assert_eq!(report.differences, [], "{report:#?}");
    }

    /// It was Stripe that said otherwise, and does so no longer.
    pub async fn straightened(&self) {
        self.bent.straighten();
        self.agrees().await;
    }

    /// What somebody did to our rows, until it is undone.
    pub async fn while_ours_say(&self, wrong: &'static str) {
        self.agrees().await;
        self.shop.app.as_owner(wrong).await;
    }

    /// It is undone.
    pub async fn undone(&self, right: &'static str) {
        self.shop.app.as_owner(right).await;
        self.agrees().await;
    }

    pub async fn one(&self, query: &'static str) -> String {
        sqlx::query_scalar(query).fetch_one(&self.shop.app.database.owner).await.unwrap()
    }

    /// Nothing of what just happened at Stripe is ever delivered.
    pub fn lose(&self) {
        assert!(!self.shop.news().is_empty(), "nothing happened");
    }
}
