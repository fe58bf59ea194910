//! The stand-in for Ometria's push endpoint: as strict as the real one is documented, and faulty on demand.
//!
//! ```text
//!  push ──▶ server ──▶ routes ──▶ state: checks + faults ──▶ answer, delay, silence or a cut connection
//!                         └─────▶ control: faults, pushes, records and totals over HTTP
//! ```
//!
//! | route | does |
//! |---|---|
//! | `POST /v2/push` | checks the key, then the push: 202, or 403 or 400 with the reason |
//! | `GET /v2/push/_errors` | what was rejected after its 202, by the fault `reject-later`: the last 100 |
//! | `GET`, `POST`, `DELETE /_simulator/faults` | shows, adds (`{"fault":"status=503,count=3"}` or an array of texts) or ends faults |
//! | `GET /_simulator/pushes` | the pushes seen, as a JSON array of [`PushSeen`] |
//! | `GET`, `DELETE /_simulator/records` | the accepted records as NDJSON, byte for byte; or forgets them |
//! | `GET /_simulator/stats` | the [`Counters`] |
//!
//! - It listens on loopback addresses only: it holds what it is sent and asks nobody who they are.
//! - Memory, connections and bodies are bounded; there are no time-outs, a slow client may take its time.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use secrecy::SecretString;
use tokio::net::TcpListener;

mod checks;
mod control;
mod fault_text;
mod faults;
mod routes;
mod server;
mod state;
#[cfg(test)]
mod tests;

pub use checks::{PUSH_RECORDS_MAX, RECORD_BYTES_MAX};
pub use fault_text::{FAULT_GRAMMAR, FaultTextError};
pub use faults::{Effect, Fault};
pub use state::{Counters, FaultActive, Handle, PushSeen, RecordSeen};

/// Where the simulator listens unless told otherwise.
pub const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8482);

/// How many accepted records are kept unless told otherwise.
const KEEP_RECORDS_MAX_DEFAULT: usize = 100_000;

/// How a simulator is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The only key accepted; `None`: any key that is not empty.
    pub api_key: Option<SecretString>,
    /// In force from the first push.
    pub faults: Vec<Fault>,
    /// How many accepted records are kept; also how many ids of pushes.
    pub keep_records_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: LISTEN_DEFAULT,
            api_key: None,
            faults: Vec::new(),
            keep_records_max: KEEP_RECORDS_MAX_DEFAULT,
        }
    }
}

/// A simulator that has its address; connections wait until it runs.
#[derive(Debug)]
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    handle: Handle,
}

impl Simulator {
    /// Takes the address.
    ///
    /// # Errors
    /// `InvalidInput` when the address is not loopback; otherwise what the system says.
    ///
    /// # Cancel safety
    /// Dropping the future gives the address back.
    pub async fn bind(options: Options) -> io::Result<Simulator> {
        if !options.listen.ip().is_loopback() {
            let refusal = format!(
                "{} is not a loopback address, and the simulator is open to whoever can connect",
                options.listen
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, refusal));
        }
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let handle = Handle::new(options.api_key, options.keep_records_max);
        for fault in options.faults {
            handle.add_fault(fault);
        }
        Ok(Simulator { listener, address, handle })
    }

    /// The address taken, with its real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL to push to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, routes::PUSH_PATH)
    }

    /// Looks into the simulator, also after its end.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown` is ready: then requests under way are answered, hanging ones are cut.
    ///
    /// # Cancel safety
    /// Dropping the future closes every connection at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        server::run(self.listener, self.handle, shutdown).await;
    }
}
