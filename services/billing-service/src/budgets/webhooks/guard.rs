//! The guard against server-side request forgery: an address that an outsider chose may be reached only if it is public, and what was
//! checked is what is connected to (the name is resolved once, and the connection is pinned to the answer).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// Why nothing is sent there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a URL of the wanted kind.
    #[error("must be an https URL without credentials and fragment")]
    Url,
    /// The name has no address.
    #[error("the host cannot be resolved")]
    Unresolvable,
    /// An address that is not of the public internet.
    #[error("the host is not on the public internet")]
    Private,
}

/// Where a request may go: the URL, and the address its host was checked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The URL.
    pub url: Url,
    /// The host as the URL names it.
    pub host: String,
    /// What to connect to, and to nothing else.
    pub address: SocketAddr,
}

/// What can be said of a URL without resolving it.
///
/// # Errors
/// [`Refused`].
pub fn parse(text: &str, to_private: bool) -> Result<Url, Refused> {
    let url = Url::parse(text).map_err(|_| Refused::Url)?;
    let scheme = url.scheme() == "https" || to_private && url.scheme() == "http";
    let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if !(scheme && plain && text.len() <= 2000) {
        return Err(Refused::Url);
    }
    let literal = match url.host().ok_or(Refused::Url)? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(IpAddr::V4(address)),
        Host::Ipv6(address) => Some(IpAddr::V6(address)),
    };
    if !to_private && literal.is_some_and(|address| !is_public(address)) {
        return Err(Refused::Private);
    }
    Ok(url)
}

/// Resolves and checks. All addresses of the name must be public: one that is not says that somebody plays with it.
///
/// # Errors
/// [`Refused`].
pub async fn resolve(text: &str, to_private: bool) -> Result<Target, Refused> {
    let url = parse(text, to_private)?;
    let port = url.port_or_known_default().ok_or(Refused::Url)?;
    let addresses: Vec<SocketAddr> = match url.host().ok_or(Refused::Url)? {
        Host::Ipv4(address) => vec![SocketAddr::from((address, port))],
        Host::Ipv6(address) => vec![SocketAddr::from((address, port))],
        Host::Domain(name) => tokio::net::lookup_host((name, port)).await.map_err(|_| Refused::Unresolvable)?.collect(),
    };
    let address = *addresses.first().ok_or(Refused::Unresolvable)?;
    if !to_private && !addresses.iter().all(|address| is_public(address.ip())) {
        return Err(Refused::Private);
    }
    let host = url.host_str().ok_or(Refused::Url)?.to_owned();
    Ok(Target { url, host, address })
}

/// Whether an address is of the public internet: neither of a machine, a local network, a cloud's metadata, nor a way to write one of
/// those as something else (IANA's registries of special-purpose addresses).
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || a == 100 && (64..128).contains(&b)
        || a == 192 && b == 0 && c == 0
        || a == 192 && b == 88 && c == 99
        || a == 198 && (18..20).contains(&b))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    // NAT64: the last four bytes are an address of the other family.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = address.octets();
        return is_public_v4(Ipv4Addr::new(a, b, c, d));
    }
    // Of the global unicast range, less protocol assignments and tunnels (2001::/23), documentation and 6to4.
    let global = segments[0] & 0xe000 == 0x2000;
    let assignments = segments[0] == 0x2001 && segments[1] < 0x200;
    let documentation = segments[0] == 0x2001 && segments[1] == 0xdb8 || segments[0] == 0x3fff && segments[1] < 0x1000;
    global && !assignments && !documentation && segments[0] != 0x2002
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_public_is_refused_however_it_is_written() {
        let refused = [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://100.100.100.200/",
            "https://0.0.0.0/",
            "https://198.18.0.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://192.0.0.192/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[fd00:ec2::254]/",
            "https://[fe80::1]/",
            "https://[fec0::1]/",
            "https://[ff02::1]/",
            "https://[2002:7f00:1::]/",
            "https://[2001:0:1::]/",
            "https://[::7f00:1]/",
            "https://[2001:db8::1]/",
        ];
        for url in refused {
            assert_eq!(parse(url, false), Err(Refused::Private), "{url}");
        }
        for url in
            ["https://93.184.215.14/x", "https://[2606:2800:21f::1]/", "https://[64:ff9b::5db8:d70e]/", "https://example.com:8443/a?b=c"]
        {
            assert!(parse(url, false).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_https_without_credentials_is_accepted() {
        for url in [
            "http://example.com/",
            "ftp://example.com/",
            "https://user@example.com/",
            "https://:x@example.com/",
            "https://example.com/#a",
            "//example.com",
            "example.com",
            "",
            "file:///etc/passwd",
            "https://",
        ] {
            assert_eq!(parse(url, false), Err(Refused::Url), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_this_machine_is_refused() {
        assert_eq!(resolve("https://localhost/", false).await, Err(Refused::Private));
        assert_eq!(resolve("http://localhost:9/", true).await.map(|target| target.address.port()), Ok(9));
    }

    proptest! {
        #[test]
        fn an_address_in_the_clothes_of_the_other_family_is_judged_the_same(bits: u32) {
            let address = Ipv4Addr::from(bits);
            prop_assert_eq!(is_public(IpAddr::V6(address.to_ipv6_mapped())), is_public(IpAddr::V4(address)));
        }
    }
}
