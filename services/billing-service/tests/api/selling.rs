//! A catalogue that a test sells.

use billing_service::audit::Decision;
use billing_service::catalog::apply::{apply, plan};
use billing_service::catalog::parse;

use super::app::App;

/// Sells what a text says, and nothing else.
pub async fn sell(app: &App, text: &str) {
    let (state, wanted) = (app.state(), parse(text).unwrap());
    let planned = plan(&state, &wanted).await.unwrap();
    let decision = Decision::new(&state, "ada", "a test", None);
    apply(&state, &wanted, &planned.stored, &decision).await.unwrap();
}
