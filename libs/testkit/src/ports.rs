//! Ports for servers that are started on a port of their own, and started again on the same one.
//!
//! A port that the kernel chose and that was given back is anybody's: of the next who asks, and of the near end of any connection. So these
//! are outside the range that the kernel chooses from, and each is claimed by a name that one process at a time can have. The name is an
//! abstract one of a Unix socket: it is known where the port is, in the same network namespace, and ends with its process.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Below are the ports of services that somebody may have on their machine.
const FIRST: u16 = 10_000;
/// From where to where the kernel takes the ports that nobody named, as it is set by default.
const CHOSEN_BY_DEFAULT: Range<u32> = 32_768..61_000;
/// Two that ask one after the other begin so far apart.
const STRIDE: u32 = 41;

/// A port of this machine that nobody else who asks here is given, and no connection has, as long as this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Claims one that nobody listens on.
    ///
    /// # Errors
    /// When there is none.
    pub fn claim() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let candidates = candidates(&chosen_by_kernel());
        let many = u32::try_from(candidates.len())?;
        let begin = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)).wrapping_mul(STRIDE);
        for at in 0..many {
            let number = candidates[usize::try_from(begin.wrapping_add(at) % many)?];
            if let Some(port) = Self::try_claim(number)? {
                return Ok(port);
            }
        }
        anyhow::bail!("none of {many} ports is free")
    }

    /// Its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// None when somebody has claimed it, or listens on it without having asked.
    fn try_claim(number: u16) -> Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("trivet-port-{number}"))?;
        let claim = match UnixListener::bind_addr(&name) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(None),
            claim => claim.context("a port cannot be claimed")?,
        };
        Ok(TcpListener::bind(("127.0.0.1", number)).is_ok().then_some(Self { number, _claim: claim }))
    }
}

/// The range that the kernel chooses from.
fn chosen_by_kernel() -> Range<u32> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => first..last + 1,
        _ => CHOSEN_BY_DEFAULT,
    }
}

/// The ports that the kernel does not choose; where it chooses all of them, any.
fn candidates(chosen: &Range<u32>) -> Vec<u16> {
    let outside: Vec<u16> = (FIRST..=u16::MAX).filter(|port| !chosen.contains(&u32::from(*port))).collect();
    if outside.is_empty() { (FIRST..=u16::MAX).collect() } else { outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_claimants_until_it_is_given_back() {
        let port = Port::claim().unwrap();
        assert!(Port::try_claim(port.number()).unwrap().is_none(), "it is claimed, though nobody listens");
        let number = port.number();
        drop(port);
        assert!(Port::try_claim(number).unwrap().is_some());
    }

    #[test]
    fn a_port_that_somebody_listens_on_without_asking_is_not_given_away() {
        let port = Port::claim().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
        let number = port.number();
        drop(port);
        assert!(Port::try_claim(number).unwrap().is_none());
        drop(listener);
        assert!(Port::try_claim(number).unwrap().is_some());
    }

    #[test]
    fn no_port_is_one_that_the_kernel_gives_to_connections() {
        let chosen = chosen_by_kernel();
        let free = candidates(&chosen);
        assert!(free.iter().all(|port| !chosen.contains(&u32::from(*port))) || chosen == (u32::from(FIRST)..65_536));
        assert!(candidates(&CHOSEN_BY_DEFAULT).iter().all(|port| !(32_768..=60_999).contains(port)));
        assert_eq!(candidates(&(1..65_536)).len(), 55_536, "where it gives all of them, any is as good");
    }
}
