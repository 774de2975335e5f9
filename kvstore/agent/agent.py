"""An agent's life: programs started, services registered, and the end in the right order.

    start the programs ─► register (STARTING, if there are checks) ─► checks ─► UP
    SIGTERM, SIGINT ─► deregister ─► subscribers know, or the drain time is over ─► pass it on
                    ─► the program ends (or SIGKILL) ─► its exit code
    a program ends  ─► deregister at once ─► the others are stopped as above ─► its exit code

A second signal ends the waiting, a third kills. All other signals are passed on as they come.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Sequence

from kvstore.agent.config import AgentConfig, ServiceConfig
from kvstore.agent.exits import AgentExit, StartError
from kvstore.agent.health import Health
from kvstore.agent.program import Program
from kvstore.agent.registration import Refused, Registration
from kvstore.checks.probes import Prober
from kvstore.checks.scheduler import Scheduler
from kvstore.client.aio import AsyncClient
from kvstore.client.registry.aio import AsyncRegistry
from kvstore.client.registry.values import Instance, Status

__all__ = ("Agent",)

_LOG = logging.getLogger(__name__)
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_PASSED_ON = (
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


class _Service:
    """One service, and the program behind it, if the agent runs it."""

    def __init__(
        self, config: ServiceConfig, program: Program | None, calls: AsyncRegistry
    ) -> None:
        self.config = config
        self.program = program
        self.registration = Registration(calls, _instance(config))
        self.health = Health(config, config.address, self.registration.report)

    @property
    def ended(self) -> bool:
        """Its program has ended by itself: there is nobody to be drained."""
        return self.program is not None and not self.program.running


class Agent:
    """Runs once; `run` returns the exit code."""

    def __init__(self, config: AgentConfig, client: AsyncClient) -> None:
        """The services of `config` have their ids and addresses."""
        self._config = config
        self._prober = Prober()
        self._programs: list[Program] = []
        self._services: list[_Service] = []
        self._make(client.registry)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._kill = asyncio.Event()
        self._signal = signal.SIGTERM
        """The first that asked to stop; it is the one that is passed on."""

    def _make(self, calls: AsyncRegistry) -> None:
        shared: Program | None = None
        if self._config.command:
            shared = self._program(self._config.command, self._config.services)
        for config in self._config.services:
            program = self._program(config.command, (config,)) if config.command else shared
            self._services.append(_Service(config, program, calls))

    def _program(self, argv: Sequence[str], services: Sequence[ServiceConfig]) -> Program:
        """A program; one that is behind a single service is told which."""
        environment = {}
        if len(services) == 1:
            one = services[0]
            environment = {
                "KVSTORE_NAMESPACE": one.namespace,
                "KVSTORE_SERVICE": one.service,
                "KVSTORE_INSTANCE_ID": one.id,
            }
        program = Program(argv, environment, stop_with_agent=self._config.stop_with_agent)
        self._programs.append(program)
        return program

    async def run(self) -> int:
        """Everything, until the end; the exit code."""
        self._listen()
        scheduler = Scheduler(self._prober, eager=True)
        try:
            for program in self._programs:
                await program.start()
            code = await self._run_started(scheduler)
        except StartError as error:
            _LOG.error("%s", error.sentence)
            await self._stop_programs()
            return error.code
        finally:
            await scheduler.close()
            await self._prober.close()
        if code is not None:
            return code
        codes = [program.exit_code for program in self._programs]
        return next((each for each in codes if each), AgentExit.STOPPED)

    async def _run_started(self, scheduler: Scheduler) -> int | None:
        """From the registration to the end; the exit code, None if the programs' count."""
        keeping = [service.registration.start() for service in self._services]
        for service in self._services:
            service.health.start(scheduler)
        endings = {asyncio.ensure_future(each.wait()): each for each in self._programs}
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((stopping, *endings, *keeping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        refused = next((each.exception() for each in keeping if each.done()), None)
        ended = [program for ending, program in endings.items() if ending.done()]
        code: int | None = None
        if refused is not None:
            code = AgentExit.FAILED
            self._say_refused(refused)
            why = "the agent stops: a registration was refused"
        elif ended:
            code = ended[0].exit_code
            why = f"the agent stops: {ended[0].name} {ended[0].end}"
            _LOG.warning("%s %s", ended[0].name, ended[0].end)
        else:
            why = f"stopped by {self._signal.name}"
        await self._end(scheduler, why)
        await asyncio.gather(*endings, return_exceptions=True)
        return code

    def _say_refused(self, error: BaseException) -> None:
        if isinstance(error, Refused):
            _LOG.error("%s", error)
        else:
            _LOG.error("stopping because of an unexpected error", exc_info=error)

    # ---- the end ---------------------------------------------------------------------------

    async def _end(self, scheduler: Scheduler, why: str) -> None:
        """Deregisters everything, waits until that is known, then stops the programs."""
        for service in self._services:
            service.health.stop(scheduler)
        leaving = asyncio.gather(*(self._leave(each, why) for each in self._services))
        hurried = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((leaving, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if self._hurry.is_set():
            _LOG.warning("a second signal: not waiting for those who use the services")
        await self._stop_programs()
        await leaving

    async def _leave(self, service: _Service, why: str) -> None:
        """Deregisters one service, and returns when its program may end."""
        clock = asyncio.get_running_loop().time
        began = clock()
        program = service.program
        if service.ended and program is not None:
            await service.registration.deregister(f"{program.name} {program.end}", 0.0)
            return
        drain_s = service.config.drain_s
        everyone_knows = await service.registration.deregister(why, drain_s)
        left_s = began + drain_s - clock()
        if not everyone_knows and left_s > 0:
            _LOG.info("giving those who use %s %.1f s to find out", service.config.service, left_s)
            await _until(self._hurry, left_s)

    async def _stop_programs(self) -> None:
        """Passes the signal on to all that run, and waits for their end."""
        running = [program for program in self._programs if program.running]
        for program in running:
            _LOG.info("passing %s on to %s", self._signal.name, program.name)
        timeout_s = self._config.stop_timeout_s
        await asyncio.gather(*(each.stop(self._signal, timeout_s, self._kill) for each in running))
        for program in running:
            _LOG.info("%s %s", program.name, program.end)

    # ---- signals ---------------------------------------------------------------------------

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _STOPPING:
            loop.add_signal_handler(number, self._asked_to_stop, number)
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._pass_on, number)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if not self._stop.is_set():
            _LOG.info("%s: deregistering first", number.name)
            self._signal = number
            self._stop.set()
        elif not self._hurry.is_set():
            self._hurry.set()
        else:
            self._kill.set()

    def _pass_on(self, number: signal.Signals) -> None:
        for program in self._programs:
            program.signal(number)


async def _until(event: asyncio.Event, seconds: float) -> None:
    """Waits for an event, but not longer than so."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait((waiting,), timeout=max(0.0, seconds))
    waiting.cancel()


def _instance(config: ServiceConfig) -> Instance:
    return Instance(
        service=config.service,
        namespace=config.namespace,
        id=config.id,
        address=config.address,
        ports=config.ports,
        zone=config.zone,
        region=config.region,
        version=config.version,
        weight=config.weight,
        tags=config.tags,
        metadata=config.metadata,
        reported=Status.STARTING if config.checks else Status.UP,
        ttl_s=config.ttl_s,
        grace_s=config.grace_s,
        drain_s=math.ceil(config.drain_s),
    )
