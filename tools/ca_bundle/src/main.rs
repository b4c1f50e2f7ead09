//! Writes the certificates of Mozilla's root program as one PEM file: the CA layer of the images. Pinned by Cargo.lock, the same
//! everywhere, and never those of the machine that builds.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for certificate in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        writeln!(out, "-----BEGIN CERTIFICATE-----")?;
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
        writeln!(out, "-----END CERTIFICATE-----")?;
    }
    Ok(())
}
