//! Which service may call which, for what. A token for anything else is not made.

use std::collections::BTreeSet;

use chassis::config::FromSetting;
use contracts::auth::SCOPE_API_KEYS_VERIFY;
use contracts::{auth, billing, entitlements, leases};

/// Of the services of an installation, with audience and scope.
const SERVICES: [(&str, &str, &str); 5] = [
    ("chat-service", auth::SERVICE, SCOPE_API_KEYS_VERIFY),
    ("billing-service", auth::SERVICE, SCOPE_API_KEYS_VERIFY),
    ("chat-service", billing::SERVICE, billing::SCOPE_RESERVATIONS_WRITE),
    ("chat-service", billing::SERVICE, leases::SCOPE_LEASES_WRITE),
    ("chat-service", billing::SERVICE, entitlements::SCOPE_ENTITLEMENTS_READ),
];

/// What a program of an operator may be given, by audience: nothing that stands for a customer's request.
const OPERATORS: [(&str, &str); 3] = [
    (billing::SERVICE, billing::SCOPE_ADMIN_READ),
    (billing::SERVICE, billing::SCOPE_ADMIN_WRITE),
    (billing::SERVICE, billing::SCOPE_MARGIN_READ),
];

/// What programs of operators may have tokens for: an operator's choice, nothing without one.
#[derive(Debug, Clone, Default)]
pub struct OperatorGrants(BTreeSet<(String, String, String)>);

impl OperatorGrants {
    /// Whether the service may have a token of all these scopes, with spaces between.
    #[must_use]
    pub fn allow(&self, service: &str, audience: &str, scope: &str) -> bool {
        if SERVICES.contains(&(service, audience, scope)) {
            return true;
        }
        let granted = |scope: &str| self.0.contains(&(service.to_owned(), audience.to_owned(), scope.to_owned()));
        !scope.is_empty() && scope.split(' ').all(granted)
    }
}

impl FromSetting for OperatorGrants {
    fn from_setting(text: &str) -> Result<Self, String> {
        let mut grants = BTreeSet::new();
        for grant in text.split(';').map(str::trim).filter(|grant| !grant.is_empty()) {
            let mut words = grant.split_whitespace();
            let (Some(name), Some(audience), scopes) = (words.next(), words.next(), words.collect::<Vec<_>>()) else {
                return Err(format!("must be NAME AUDIENCE SCOPE... with ; between, and '{grant}' has no audience"));
            };
            if SERVICES.iter().any(|(service, ..)| *service == name) {
                return Err(format!("must name programs of operators, and '{name}' is a service"));
            }
            if scopes.is_empty() {
                return Err(format!("must say which scopes '{name}' may have"));
            }
            for scope in scopes {
                if !OPERATORS.contains(&(audience, scope)) {
                    let known = OPERATORS.map(|(audience, scope)| format!("{audience} {scope}")).join(", ");
                    return Err(format!("must be of {known}; '{audience} {scope}' is not"));
                }
                grants.insert((name.to_owned(), audience.to_owned(), scope.to_owned()));
            }
        }
        Ok(Self(grants))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_an_operator_has_what_was_granted_and_any_part_of_it() {
        let grants = "console billing-service billing:admin:read billing:admin:write; reports billing-service margin:read;";
        let grants = OperatorGrants::from_setting(grants).unwrap();
        for (service, audience, scope, is_allowed) in [
            ("console", "billing-service", "billing:admin:read", true),
            ("console", "billing-service", "billing:admin:read billing:admin:write", true),
            ("console", "billing-service", "billing:admin:read margin:read", false),
            ("console", "billing-service", "", false),
            ("console", "billing-service", " ", false),
            ("console", "auth-service", "billing:admin:read", false),
            ("console", "auth-service", "api_keys:verify", false),
            ("reports", "billing-service", "margin:read", true),
            ("reports", "billing-service", "billing:admin:read", false),
            ("chat-service", "billing-service", "leases:write", true),
            ("chat-service", "billing-service", "billing:admin:read", false),
        ] {
            assert_eq!(grants.allow(service, audience, scope), is_allowed, "{service} {audience} {scope}");
        }
        assert!(!OperatorGrants::from_setting("").unwrap().allow("console", "billing-service", "billing:admin:read"));
    }

    #[test]
    fn a_grant_that_is_none_of_an_operators_is_refused_with_what_is_wrong() {
        for (text, wrong) in [
            ("console", "'console' has no audience"),
            ("console billing-service", "which scopes 'console'"),
            ("console billing-service leases:write", "'billing-service leases:write' is not"),
            ("console auth-service api_keys:verify", "'auth-service api_keys:verify' is not"),
            ("chat-service billing-service billing:admin:read", "'chat-service' is a service"),
        ] {
            let error = OperatorGrants::from_setting(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
