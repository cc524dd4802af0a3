//! The host put together from its parts.

use std::error::Error;
use std::time::Duration;

use futures::StreamExt;
use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{Config, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, Swarm, gossipsub, identify, yamux};
use sha2::{Digest, Sha256};

use crate::admission::Admission;
use crate::discovery;
use crate::options::Options;
use crate::streams::{self, Services};
use crate::tap::Tap;
use crate::transports;

/// rust-libp2p ends a connection without streams after 10 seconds by default; commands may be further apart.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub identify: identify::Behaviour,
    pub serving: streams::Behaviour,
    pub opening: libp2p_stream::Behaviour,
    pub gossip: Toggle<gossipsub::Behaviour>,
    pub discovery: discovery::Behaviour,
}

/// Builds a host that listens, and where it does.
pub async fn build(
    key: &Keypair,
    options: &Options,
    services: Services,
    admission: Option<Admission>,
    tap: Option<Tap>,
) -> Result<(Swarm<Behaviour>, Vec<Multiaddr>), Box<dyn Error>> {
    let identify = identify::Config::new_with_signed_peer_record("ipfs/0.1.0".into(), key)
        .with_agent_version(options.agent.clone());
    let behaviour = Behaviour {
        identify: identify::Behaviour::new(identify),
        serving: streams::Behaviour::new(services, options.handshake),
        opening: libp2p_stream::Behaviour::new(),
        gossip: options.gossip.router(key)?.into(),
        discovery: options
            .discovery
            .behaviour(key)
            .map_err(|error| error as Box<dyn Error>)?,
    };
    let muxer = muxer(options.max_streams);
    let connections = transports::build(key, options.security, muxer, admission, tap)?;
    let config = Config::with_tokio_executor().with_idle_connection_timeout(IDLE_TIMEOUT);
    let peer = key.public().to_peer_id();
    let mut swarm = Swarm::new(connections, behaviour, peer, config);
    let addrs = listen(&mut swarm, &options.listen).await?;
    if options.discovery.announces() {
        // without one a provider or a registration says nothing of where it is
        addrs
            .iter()
            .for_each(|addr| swarm.add_external_address(addr.clone()));
    }
    Ok((swarm, addrs))
}

/// The Ed25519 key that belongs to the seed, or a random one.
pub fn identity(seed: Option<&str>) -> Keypair {
    match seed {
        Some(seed) => {
            let secret = Sha256::digest(format!("vouch-interop-rust/{seed}"));
            Keypair::ed25519_from_bytes(secret).expect("32 bytes are a secret key")
        }
        None => Keypair::generate_ed25519(),
    }
}

#[allow(deprecated)] // set_max_num_streams, for which there is nothing else yet
fn muxer(max_streams: Option<usize>) -> yamux::Config {
    let mut config = yamux::Config::default();
    if let Some(count) = max_streams {
        config.set_max_num_streams(count);
    }
    config
}

async fn listen(
    swarm: &mut Swarm<Behaviour>,
    wanted: &[Multiaddr],
) -> Result<Vec<Multiaddr>, Box<dyn Error>> {
    for addr in wanted {
        swarm.listen_on(addr.clone())?;
    }
    let mut addrs = Vec::new();
    while addrs.len() < wanted.len() {
        match swarm.select_next_some().await {
            SwarmEvent::NewListenAddr { address, .. } => addrs.push(address),
            SwarmEvent::ListenerClosed {
                reason: Err(error), ..
            }
            | SwarmEvent::ListenerError { error, .. } => return Err(error.into()),
            _ => {}
        }
    }
    Ok(addrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_belongs_to_its_seed() {
        let peer = |seed| identity(seed).public().to_peer_id();
        assert_eq!(peer(Some("a")), peer(Some("a")));
        assert_ne!(peer(Some("a")), peer(Some("b")));
        assert_ne!(peer(None), peer(None));
    }
}
