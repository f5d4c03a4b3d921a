"""What `optnas dashboard` adds to optuna-dashboard: notes on trials, their curves, and plots that end."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optnas import private
from optnas.analysis.sample import sampled, what_is_shown
from optnas.dashboard.lean import import_dashboard
from optnas.dashboard.notes import CURVES, Notes, kept_weights
from optnas.estimation.artifacts import StudyArtifacts

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_N_PARAMS = 4  # of a plot of all their pairs
_PAIRS = ("contour", "rank")
_NUMBER = "([0-9]{1,18})"  # of a study or a trial: larger ones no database has
_STYLE = b"""<style>
/* Long attributes make the pages wider than the window, and the list of trials wider than a phone, on which
two plots side by side are cut and their buttons lie over what they show; links in notes are dark blue on a
dark page. */
.MuiBox-root { min-width: 0; overflow-wrap: anywhere; }
img { max-width: 100%; }
a:not([class]) { color: inherit; }
.MuiTableContainer-root .MuiTable-root { min-width: 0; }
.MuiTableCell-root:first-child { overflow-wrap: normal; }
@media (max-width: 700px) {
  .MuiBox-root:has(+ .MuiDivider-vertical) { display: none; }
  .MuiGrid-root[class*="MuiGrid-grid-xs-"] { flex-basis: 100%; max-width: 100%; }
  .MuiBox-root:has(> .MuiTypography-root + .MuiBox-root) { flex-wrap: wrap; }
  .MuiTypography-root + .MuiBox-root { white-space: normal; }
  .MuiCardContent-root > .MuiBox-root { flex-wrap: wrap; }
  .modebar { display: none; }
}
</style>"""
# The browser asks for the study while the dashboard's script, which asks next, starts.
_PRELOAD = '<link rel="preload" href="/api/studies/{}?after=0" as="fetch" crossorigin="anonymous">'
_log = logging.getLogger(__name__)

Headers = list[tuple[str, str]]
# All that is told of a study: its trials, user attributes, system attributes, and weights on this machine.
_State = tuple[list[FrozenTrial], dict[str, Any], dict[str, Any], dict[int, Path]]


class Pages:
    """A WSGI application: optuna-dashboard on a storage, with what it lacks for architecture search.

    Notes that users wrote stand in place of ours. Of large studies some trials are shown (`analysis.sample`).
    """

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = sampled(storage)
        wsgi = import_dashboard().wsgi
        self._dashboard = wsgi(self._storage, artifact_store=StudyArtifacts(self._storage))
        # A study that is renamed is copied, so what changes something must see all of it.
        self._whole = wsgi(storage, artifact_store=StudyArtifacts(storage))
        self._kept: dict[str, tuple[_State, bytes]] = {}
        # A path, a type, and what is answered there in place of the dashboard.
        self._own: list[tuple[str, str, Callable[..., str]]] = [
            (rf"/api/studies/{_NUMBER}/plot/({'|'.join(_PAIRS)})", "application/json", self._pairs),
            (rf"{CURVES}/{_NUMBER}/{_NUMBER}\.svg", "image/svg+xml", self._curve),
        ]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"].rstrip("/")
        if environ["REQUEST_METHOD"] == "GET":
            if match := re.fullmatch(rf"/dashboard(?:/studies/{_NUMBER})?(?:/.*)?", path):
                return self._changed(environ, start_response, partial(_with_head, study_id=match[1]))
            if match := re.fullmatch(rf"/api/studies/{_NUMBER}", path):
                return self._detail(environ, start_response, match[1])
            for pattern, kind, make in self._own:
                if match := re.fullmatch(pattern, path):
                    return _answer(start_response, kind, make, match.groups())
        return self._plain(environ, start_response)

    def _plain(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        dashboard = self._dashboard if environ["REQUEST_METHOD"] in ("GET", "HEAD") else self._whole
        answered: Iterable[bytes] = dashboard(environ, start_response)
        return answered

    def _detail(
        self, environ: WSGIEnvironment, start_response: StartResponse, study_id: str
    ) -> Iterable[bytes]:
        """A study and its trials with notes; as it was answered before, where nothing has changed since."""
        try:
            state = _state(self._study(study_id))
        except KeyError:
            return self._plain(environ, start_response)  # says so
        before, kept = self._kept.get(study_id, (None, b""))
        if state == before and environ.get("QUERY_STRING") == "after=0":
            return _send(start_response, "200 OK", "application/json", kept)
        return self._changed(
            environ, start_response, partial(self._with_notes, study_id=study_id, state=state)
        )

    def _changed(
        self, environ: WSGIEnvironment, start_response: StartResponse, change: Callable[[bytes], bytes]
    ) -> Iterable[bytes]:
        # The browser's copy may be from before the change.
        environ = {key: value for key, value in environ.items() if not key.startswith("HTTP_IF_")}
        seen: list[tuple[str, Headers]] = []
        answered = self._dashboard(environ, lambda *given: seen.append(given[:2]))
        body = b"".join(answered)
        if hasattr(answered, "close"):  # WSGI leaves it to each answer whether it has that
            answered.close()
        status, headers = seen[-1]
        if status.startswith("200"):
            body = change(body)
            headers = [h for h in headers if h[0] not in ("Content-Length", "Last-Modified", "ETag")]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body]

    def _with_notes(self, body: bytes, study_id: str, state: _State) -> bytes:
        detail: dict[str, Any] = json.loads(body)
        study = self._study(study_id)
        notes = Notes(study)
        if not detail["note"]["body"]:
            detail["note"]["body"] = what_is_shown(study)
        for trial in (*detail["trials"], *detail["best_trials"]):
            if not trial["note"]["body"]:
                trial["note"]["body"] = notes.of(trial["number"])
        body = json.dumps(detail, separators=(",", ":")).encode()
        # The dashboard may know the trials of ten seconds ago, and a page asks for the latest ones only.
        trials, told = state[0], [(trial["number"], trial["state"].upper()) for trial in detail["trials"]]
        if told == [(t.number, t.state.name) for t in trials] and all(t.state.is_finished() for t in trials):
            self._kept[study_id] = state, body
        return body

    def _pairs(self, study_id: str, kind: str) -> str:
        from optnas.dashboard.study_plots import choose_params

        study = self._study(study_id)
        shown = optuna.visualization
        plot = {"contour": shown.plot_contour, "rank": shown.plot_rank}[kind]
        target = _first_value if len(study.directions) > 1 else None
        figure: str = plot(study, params=choose_params(study, _N_PARAMS), target=target).to_json()
        return figure

    def _curve(self, study_id: str, number: str) -> str:
        from optnas.drawing.curve import draw_curve  # beside what needs torch, for which no page shall wait

        study = self._study(study_id)
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        return draw_curve(trials[int(number)], Notes(study).best)

    def _study(self, study_id: str) -> optuna.Study:
        name = self._storage.get_study_name_from_id(int(study_id))
        return optuna.load_study(study_name=name, storage=self._storage)


def _state(study: optuna.Study) -> _State:
    attrs = dict(
        private.storage(study).get_study_system_attrs(private.study_id(study))
    )  # storages in memory go on with theirs
    return study.get_trials(deepcopy=False), study.user_attrs, attrs, kept_weights(study)


def _with_head(body: bytes, study_id: str | None) -> bytes:
    preload = b"" if study_id is None else _PRELOAD.format(study_id).encode()
    return body.replace(b"</head>", preload + _STYLE + b"</head>")


def _answer(
    start_response: StartResponse, kind: str, make: Callable[..., str], arguments: tuple[str, ...]
) -> list[bytes]:
    try:
        return _send(start_response, "200 OK", kind, make(*arguments).encode())
    except KeyError:
        return _send(start_response, "404 Not Found", "text/plain", b"no such study or trial")


def _send(start_response: StartResponse, status: str, kind: str, body: bytes) -> list[bytes]:
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def _first_value(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _names(storage: BaseStorage) -> list[str]:
    try:
        return optuna.get_all_study_names(storage)
    except StorageInternalError:  # busy, or away for a while
        return []


def keep_plots(storage: BaseStorage, stop: threading.Event, every: float = 30.0, after: float = 3.0) -> None:
    """Save the plots of all studies of a storage, and again when trials have finished, until `stop` is set.

    `every`: seconds between looks; more if plots take long, because this may use a tenth of a processor.
    `after`: seconds before the first look, in which the server answers the first page without being slowed.
    """
    if stop.wait(after):
        return
    from optnas.dashboard.study_plots import save_plots

    storage = sampled(storage)
    seen: dict[str, int] = {}
    while True:
        started = time.perf_counter()
        for name in _names(storage):
            if stop.is_set():
                return
            try:
                study = optuna.load_study(study_name=name, storage=storage)
                n_finished = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
                if seen.get(name) != n_finished:
                    seen[name] = n_finished
                    save_plots(study)
            except (KeyError, StorageInternalError):  # deleted, or the storage is busy: the pages do without
                _log.debug("The plots of study %r were not saved.", name, exc_info=True)
        if stop.wait(max(every, 9 * (time.perf_counter() - started))):
            return
