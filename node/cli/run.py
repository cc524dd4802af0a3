"""`vouch run`: one node, until it is interrupted.

SIGINT and SIGTERM close everything and exit with status 0.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncIterator
from functools import partial

import trio

from node.api import control
from node.cli.parser import settings_from
from node.config import Config
from node.datadir import locked
from node.identity import key_file_warning, load_or_make_key
from node.log import configure, get_logger
from node.node import Node
from node.registry import installed_protocols

log = get_logger("run")


def run(args: argparse.Namespace) -> int:
    """Runs the node of the arguments' settings."""
    loaded = settings_from(args)
    config = loaded.config
    configure(form=config.log_format, level=config.log_level)
    for warning in loaded.warnings:
        log.warning("setting_ignored", detail=warning)
    with locked(config.data_dir):
        identity, made = load_or_make_key(config.key_path)
        if made:
            log.info("key_made", peer=identity.peer_id, file=str(config.key_path))
        readable = key_file_warning(config.key_path)
        if readable is not None:
            log.warning("key_file", detail=readable)
        trio.run(partial(serve, config, Node(config, identity=identity, protocols=installed_protocols())))
    return 0


async def serve(config: Config, node: Node) -> None:
    """Runs a node and its control socket until a signal comes."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at, signals, nursery.cancel_scope)
            async with node:
                await nursery.start(control.serve, node)
                await trio.sleep_forever()


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        scope.cancel()
        return
