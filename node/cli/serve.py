"""What `vouch run` runs: a node, its control socket, and the end at a signal."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, TextIO

import trio

from node.api import control
from node.cli.notify import Notify
from node.datadir import locked
from node.errors import UsageError
from node.hostport import OFF
from node.identity import key_file_warning, load_or_make_key
from node.log import configure, get_logger
from node.metrics import Metrics
from node.node import Node
from node.registry import installed_protocols
from node.settings import Loaded

if TYPE_CHECKING:
    from node.api.http.serve import Server

log = get_logger("run")


def serve(loaded: Loaded, *, on_node: Callable[[Node], None] | None = None, log_to: TextIO | None = None) -> None:
    """Runs the node of these settings until SIGINT or SIGTERM. `on_node` is given it before it starts; the log goes to
    `log_to`, or standard output."""
    config = loaded.config
    protocols = installed_protocols()  # first: they may be parts of the log
    try:
        configure(
            form=config.log_format,
            level=config.log_level,
            stream=log_to,
            levels=config.log_levels,
            repeat_window=config.log_repeat_window,
            max_queue=config.max_log_queue,
        )
    except ValueError as error:
        raise UsageError(f"log_levels: {error}") from None
    for warning in loaded.warnings:
        log.warning("setting_ignored", detail=warning)
    with locked(config.data_dir):
        identity, made = load_or_make_key(config.key_path)
        if made:
            log.info("key_made", peer=identity.peer_id, file=str(config.key_path))
        readable = key_file_warning(config.key_path)
        if readable is not None:
            log.warning("key_file", detail=readable)
        node = Node(config, identity=identity, protocols=protocols)
        metrics = Metrics(node)
        if on_node is not None:
            on_node(node)
        api = _api(node, metrics, asked=loaded.sources["api"] != "default")
        trio.run(_serve, node, metrics, api)


def _api(node: Node, metrics: Metrics, *, asked: bool) -> Server | None:
    """The node's HTTP API, listening, or None if the settings say so."""
    if node.config.api == OFF:
        return None
    from node.api.http.serve import Server  # a web framework, which a node without it needn't load

    api = Server(node, asked=asked, metrics=metrics)
    metrics.watch_api(api)
    return api


async def _serve(node: Node, metrics: Metrics, api: Server | None) -> None:
    notify = Notify.taken()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_at, signals, nursery.cancel_scope, notify)
            nursery.start_soon(metrics.run)
            await nursery.start(control.serve, node)  # first: who reads "started" may ask at once
            if api is not None:
                await nursery.start(api.run)
            nursery.start_soon(notify.watchdog)
            async with node:
                notify.send("READY=1")
                await trio.sleep_forever()


async def _stop_at(signals: AsyncIterator[int], scope: trio.CancelScope, notify: Notify) -> None:
    async for number in signals:
        log.info("stopping", signal=signal.Signals(number).name)
        notify.send("STOPPING=1")
        scope.cancel()
        return
