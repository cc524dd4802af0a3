"""Gossip whose messages travel only once somebody has vouched for them: libp2p's gossipsub 1.2.

`engine.Engine` is the router's rules, without I/O; `service.Gossip` runs it on streams. How it works: docs/gossip.md.
"""

from __future__ import annotations

from protocols.gossip.engine import PublishError, Receipt
from protocols.gossip.messages import Verdict
from protocols.gossip.params import GossipParams
from protocols.gossip.pending import VerdictError
from protocols.gossip.policy import ForeignNetwork, OwnNetwork
from protocols.gossip.score_params import PeerScoreParams, PeerScoreThresholds, TopicScoreParams
from protocols.gossip.service import Gossip
from protocols.gossip.topics import GossipMessage, Subscription

__all__ = [
    "ForeignNetwork",
    "Gossip",
    "GossipMessage",
    "GossipParams",
    "OwnNetwork",
    "PeerScoreParams",
    "PeerScoreThresholds",
    "PublishError",
    "Receipt",
    "Subscription",
    "TopicScoreParams",
    "Verdict",
    "VerdictError",
]
