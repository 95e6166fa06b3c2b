"""What is to run in a long-lived instance, and the tasks that make it so.

    want(submission)    what is in it ──> a task for each application: import, deploy or update ──> RUNNING
                        what is not   ──> drained, deleted, forgotten
                        what failed   ──> DEPLOY_FAILED, with the reason; the version before it serves on

A newer wish stops the work at an older one, which is undone, but never a deletion, whose calls in flight
are to finish.  Wishes for one application are fulfilled one after the other, those for several at the same
time; only imports take turns, as code that is imported expects to be alone.

Knows nothing of files, and of how wishes come in.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import attrs
import trio

from trio_serve.instance.config_file import ApplicationConfig
from trio_serve.instance.importing import ImportedCodeRaised
from trio_serve.instance.imports import Imports, Sources, changed
from trio_serve.instance.instance import Instance
from trio_serve.instance.loading import load_applications
from trio_serve.instance.options import LoggingConfig
from trio_serve.instance.plan import ServePlan
from trio_serve.instance.rest_schema import Submission, application_details
from trio_serve.instance.targets import RunTarget
from trio_serve.observe.traces import from_their_first_frame
from trio_serve.proxy.stack_trace import user_stack_trace
from trio_serve.serving.controller import NoSuchApplication
from trio_serve.serving.running_application import RunningApplication
from trio_serve.serving.status import ApplicationStatus
from trio_serve.serving.traffic import TrafficPolicy

logger = logging.getLogger("trio_serve.deploy")


@attrs.frozen
class Wish:
    """One application as it is to run, and where its code is looked for."""

    config: ApplicationConfig
    import_folders: tuple[str, ...]


@attrs.define(eq=False)
class Kept:
    """One application that is wanted, or on its way out."""

    wanted: Wish | None
    in_force: Wish | None = None
    """The wish that was fulfilled last, and that nothing has been tried since."""
    settled: bool = False
    """What could be done about the wish is done."""
    sources: Sources = attrs.field(factory=dict)
    """The files that its code was read from."""
    problem: str = ""
    """Why the wish could not be fulfilled."""
    work: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    news: trio.Event = attrs.field(factory=trio.Event)


class DesiredState:
    """Keeps the applications of ``instance`` as they are wanted, while `run` runs."""

    def __init__(self, instance: Instance, imports: Imports) -> None:
        self.kept: dict[str, Kept] = {}
        self.submission: Submission | None = None
        self._instance = instance
        self._imports = imports
        self._nursery: trio.Nursery
        self._settling = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what is wanted, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def want(self, submission: Submission | None) -> None:
        """From now on, have the applications of ``submission`` and no others; None: none at all."""
        self.submission = submission
        wishes = {} if submission is None else _wishes(submission)
        for name in [*self.kept, *(name for name in wishes if name not in self.kept)]:
            self._wish(name, wishes.get(name))

    async def stop(self) -> None:
        """Begin nothing more: what is being deployed is undone, what is being deleted finishes its calls."""
        for kept in self.kept.values():
            if kept.wanted is not None and not kept.settled:
                kept.work.cancel()
        await self.wait_until_settled()

    async def wait_until_settled(self) -> None:
        """Return when nothing is on its way up or down."""
        while not all(kept.settled for kept in self.kept.values()):
            if self._settling.is_set():
                self._settling = trio.Event()
            await self._settling.wait()

    def details(self) -> dict[str, dict[str, Any]]:
        """Each application as Ray's REST schema has it: how it fares, and what was asked for."""
        submitted = {} if self.submission is None else _submitted(self.submission)
        running = self._instance.controller.applications
        details = {}
        for name in [*self.kept, *(name for name in running if name not in self.kept)]:
            kept, application = self.kept.get(name), running.get(name)
            status, message = _fares(kept, application)
            config = kept.wanted.config if kept is not None and kept.wanted is not None else None
            details[name] = application_details(
                name, status, message, application, config, submitted.get(name)
            )
        return details

    def _wish(self, name: str, wish: Wish | None) -> None:
        kept = self.kept.get(name)
        if kept is None:
            kept = self.kept[name] = Kept(wish)
            self._nursery.start_soon(self._keep, name, kept)
            return
        if wish == kept.wanted and not kept.settled:
            return  # it becomes so
        if wish == kept.wanted == kept.in_force and not changed(kept.sources):
            return  # it is so already
        if kept.wanted is not None and not kept.settled:
            kept.work.cancel()
        kept.wanted = wish
        kept.settled = False
        kept.news.set()

    async def _keep(self, name: str, kept: Kept) -> None:
        while True:
            kept.news = trio.Event()
            wish = kept.wanted
            with trio.CancelScope() as kept.work:
                await self._fulfil(name, kept, wish)
            if not kept.news.is_set():
                self._settling.set()
                if wish is None:
                    del self.kept[name]
                    return
                kept.settled = True
            await kept.news.wait()

    async def _fulfil(self, name: str, kept: Kept, wish: Wish | None) -> None:
        kept.in_force, kept.problem = None, ""
        if wish is None:
            await self._delete(name)
            return
        logger.info("application %r: deploying %s", name, wish.config.import_path)
        try:
            await self._instance.deploy(await self._import(kept, wish))
        except Exception as error:
            kept.problem = self._why(name, error)
            raised = error.__cause__ if isinstance(error, ImportedCodeRaised) else None
            first_line = kept.problem.partition("\n")[0]
            logger.error("application %r: not deployed: %s", name, first_line, exc_info=raised)
        else:
            kept.in_force = wish
            self._set_policies(name)
            logger.info("application %r: deployed", name)

    async def _delete(self, name: str) -> None:
        logger.info("application %r: draining, to be deleted", name)
        try:
            await self._instance.delete(name)
        except NoSuchApplication:  # it never came so far
            return
        logger.info("application %r: deleted", name)

    async def _import(self, kept: Kept, wish: Wish) -> RunTarget:
        working_dir = wish.config.runtime_env.working_dir
        folders = [*([working_dir] if working_dir else []), *wish.import_folders]
        plan = ServePlan([wish.config], None, None, LoggingConfig(), folders, [])
        (target,) = await self._imports.run(folders, partial(load_applications, plan))
        module = wish.config.import_path.partition(":")[0]
        kept.sources = await trio.to_thread.run_sync(self._imports.sources_of, module)
        return target

    def _why(self, name: str, error: Exception) -> str:
        """In the words of the person whose code it is, with their frames of its trace."""
        if isinstance(error, ImportedCodeRaised):
            return f"{error}\n\n{_trace(error.__cause__ or error)}"
        running = self._instance.controller.applications.get(name)
        if running is not None and running.phase is ApplicationStatus.DEPLOY_FAILED:
            return f"{running.message}\n\n{_trace(error)}"
        return str(error) or type(error).__name__

    def _set_policies(self, deployed: str) -> None:
        """Bring into force the traffic policies whose applications all run, now that ``deployed`` does."""
        controller = self._instance.controller
        for name, kept in self.kept.items():
            if kept.in_force is None:
                continue
            traffic = kept.in_force.config.traffic
            if traffic is None and name != deployed:
                continue
            policy = TrafficPolicy({name: 1.0}) if traffic is None else traffic.policy(name)
            if controller.applications.keys() >= {*policy.targets} and controller.policy_of(name) != policy:
                controller.set_policy(name, policy)


def _fares(kept: Kept | None, running: RunningApplication | None) -> tuple[str, str]:
    """The status of one application, and a message when it is not well."""
    if kept is not None and not kept.settled:
        word = ApplicationStatus.DELETING if kept.wanted is None else ApplicationStatus.DEPLOYING
        return word.value, ""
    if kept is not None and kept.problem:
        return ApplicationStatus.DEPLOY_FAILED.value, kept.problem
    assert running is not None
    overview = running.overview()
    return overview.status.value, overview.message


def _submitted(submission: Submission) -> dict[str, Mapping[str, Any]]:
    return {app.get("name", "default"): app for app in submission.applications}


def _wishes(submission: Submission) -> dict[str, Wish]:
    folders = (*submission.import_folders, submission.folder)
    return {app.name: Wish(app, folders) for app in submission.config.applications}


def _trace(error: BaseException) -> str:
    return user_stack_trace(error.with_traceback(from_their_first_frame(error.__traceback__)))
