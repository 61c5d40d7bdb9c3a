//! Srv: the discovery that reads SRV records, and the addresses of their targets. Only with the feature
//! `srv`.

use crate::discovery::{Discovery, DiscoveryError};
use futures_util::future::{BoxFuture, try_join_all};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Targets of which the addresses are looked up; more are not looked at.
const TARGETS_MAX: usize = 256;
/// How long one question to one server may take: two fit into a look.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// No answer counts for longer, whatever it says: nodes come and go while a cluster forms.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// How long it counts that there is nothing.
const NOTHING_FOR: Duration = Duration::from_secs(1);

/// The SRV records of a name, each a host with a port of its own, and the addresses of these hosts: a
/// named port of a headless service in Kubernetes (`_otava._udp.shop.default.svc.cluster.local`), a
/// service in Consul. Priorities and weights mean nothing here: all that is found counts.
///
/// If the addresses of one host cannot be looked up, the whole look has failed: half a list must not
/// pass for a small cluster. A host of which it is known that it has no address is left out.
///
/// Answers count for as long as they say, and 5 s at most.
#[derive(Clone)]
pub struct SrvDiscovery {
    name: String,
    resolver: TokioResolver,
}

impl SrvDiscovery {
    /// Finds what stands under `name`, with the servers of the system (`/etc/resolv.conf`).
    ///
    /// # Errors
    /// [`DiscoveryError`]: the settings of the system cannot be read.
    pub fn new(name: impl Into<String>) -> Result<Self, DiscoveryError> {
        let name = name.into();
        let (config, options) =
            hickory_resolver::system_conf::read_system_conf().map_err(|error| {
                DiscoveryError::new("the resolver of the system", error.to_string())
            })?;
        Self::build(name, config, options)
    }

    /// Finds what stands under `name`, and asks only the server at `server`, over UDP, and over TCP
    /// where an answer is too long for that.
    ///
    /// # Errors
    /// [`DiscoveryError`]: the resolver cannot be started.
    pub fn from_server(
        name: impl Into<String>,
        server: SocketAddr,
    ) -> Result<Self, DiscoveryError> {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        let server = NameServerConfig::new(server.ip(), true, connections);
        let config = ResolverConfig::from_name_servers(vec![server]);
        Self::build(name.into(), config, ResolverOpts::default())
    }

    fn build(
        name: String,
        config: ResolverConfig,
        mut options: ResolverOpts,
    ) -> Result<Self, DiscoveryError> {
        options.timeout = ANSWER_WITHIN;
        options.attempts = 1;
        options.positive_max_ttl = Some(FRESH_FOR);
        options.negative_max_ttl = Some(NOTHING_FOR);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        *builder.options_mut() = options;
        let resolver = builder.build();
        let resolver =
            resolver.map_err(|error| DiscoveryError::new(place(&name), error.to_string()))?;
        Ok(Self { name, resolver })
    }

    /// The addresses of one host, of IPv6 if it has none of IPv4; none, if it is known that there is none.
    async fn addresses(&self, target: Name, port: u16) -> Result<Vec<SocketAddr>, NetError> {
        // One by one: asked for both, the resolver takes "no IPv6" for an answer where IPv4 has failed.
        let mut found = known(self.resolver.ipv4_lookup(target.clone()).await)?;
        if found.is_empty() {
            found = known(self.resolver.ipv6_lookup(target).await)?;
        }
        Ok(found
            .into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect())
    }

    async fn find(&self) -> Result<Vec<SocketAddr>, NetError> {
        let found = self.resolver.srv_lookup(self.name.as_str()).await?;
        let targets = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // A target of "." says that there is no such service.
                RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
                    Some(self.addresses(srv.target.clone(), srv.port))
                }
                _ => None,
            });
        let found = try_join_all(targets.take(TARGETS_MAX)).await?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// The addresses in an answer. That there is none is an answer too.
fn known(answer: Result<Lookup, NetError>) -> Result<Vec<IpAddr>, NetError> {
    match answer {
        Ok(found) => {
            let addresses = found
                .answers()
                .iter()
                .filter_map(|record| record.data.ip_addr());
            Ok(addresses.collect())
        }
        Err(error) if error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn place(name: &str) -> String {
    format!("the SRV records of {name}")
}

impl Discovery for SrvDiscovery {
    fn lookup(&self) -> BoxFuture<'_, Result<Vec<SocketAddr>, DiscoveryError>> {
        Box::pin(async {
            let found = self.find().await;
            found.map_err(|error| DiscoveryError::new(place(&self.name), error.to_string()))
        })
    }
}

impl fmt::Debug for SrvDiscovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SrvDiscovery").field(&self.name).finish()
    }
}

#[cfg(test)]
mod tests;
