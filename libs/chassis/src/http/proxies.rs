//! Who the client is when proxies stand before us [I-19, I-20].

use std::net::IpAddr;

use http::HeaderMap;

use crate::config::FromSetting;

/// An IP network in CIDR notation (RFC 4632).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: u128,
    prefix: u8,
}

impl Network {
    /// Whether the address lies in the network; IPv4-mapped IPv6 equals IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = 128 - u32::from(self.prefix);
        let differing = self.address ^ bits(address);
        shift == 128 || differing >> shift == 0
    }
}

impl FromSetting for Network {
    fn from_setting(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix: u8 = prefix.parse().ok()?;
            let (widest, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
            (prefix <= widest).then(|| Self { address: bits(address), prefix: prefix + offset })
        };
        parse().ok_or_else(|| "must be a network such as 10.0.0.0/8".to_owned())
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The client's address: `peer`, or, while it is a trusted proxy, what it says, from right to left. IPv4-mapped addresses
/// come out as IPv4.
#[must_use]
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let forwarded: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let mut client = peer;
    for hop in forwarded.iter().flat_map(|value| value.split(',')).rev() {
        if !is_trusted(client) {
            break;
        }
        match hop.trim().parse() {
            Ok(address) => client = address,
            Err(_) => break,
        }
    }
    client.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(forwarded: &str) -> HeaderMap {
        HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), forwarded.parse().unwrap())])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// [I-19]
    #[test]
    fn a_forwarded_address_from_an_untrusted_peer_changes_nothing() {
        assert_eq!(client_ip(ip("192.0.2.1"), &headers("198.51.100.7"), &[]), ip("192.0.2.1"));
    }

    /// [I-19]
    #[test]
    fn trusted_proxies_are_walked_from_the_right_and_a_spoofed_first_hop_is_ignored() {
        let trusted = [Network::from_setting("10.0.0.0/8").unwrap()];
        let seen = client_ip(ip("10.0.0.1"), &headers("203.0.113.99, 198.51.100.7, 10.0.0.2"), &trusted);
        assert_eq!(seen, ip("198.51.100.7"));
    }

    /// [I-20]
    #[test]
    fn an_ipv4_mapped_address_equals_its_ipv4_address() {
        let trusted = [Network::from_setting("10.0.0.0/8").unwrap()];
        let seen = client_ip(ip("::ffff:10.0.0.1"), &headers("::ffff:198.51.100.7"), &trusted);
        assert_eq!(seen, ip("198.51.100.7"));
    }

    #[test]
    fn a_network_is_parsed_and_bounded() {
        for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8", "::/129", ""] {
            assert!(Network::from_setting(wrong).is_err(), "{wrong} was accepted");
        }
        assert!(Network::from_setting("::/0").unwrap().contains(ip("192.0.2.1")));
        assert!(!Network::from_setting("2001:db8::/32").unwrap().contains(ip("2001:db9::1")));
    }
}
