//! Pages on which something is bought: credit, a plan, or a card that is left for later. What is wanted is written first, with the key
//! of the request to Stripe; the page is made afterwards; and what was paid is known from Stripe's events alone [B-70].

mod api;
mod page;
pub mod store;
mod wish;

pub use api::{__path_create, checked_url, create};
pub(crate) use page::give_up;
