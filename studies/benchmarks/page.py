"""How long the page of a trial takes to open in optuna-dashboard, with its note, curve and drawing.

    python studies/benchmarks/page.py [--trials 200] [--opens 5]
    python studies/benchmarks/page.py --storage sqlite:///digits.db --screenshot page.png

Needs Chromium and its driver (Debian: apt install chromium-driver). Without `--storage`, a study of networks
like those of the digits is made first; they are scored without training, but report fifteen epochs. A new
browser opens the page each time; its clock starts when it begins to load, and stops when the note is there
and both images are decoded. The first part of that, until the script of optuna-dashboard asks for something,
is its own start; the study is on its way meanwhile. The server works that out anew the first time (the most,
in brackets), then answers as before. Then the same browser goes to the page of another trial. Last, the
requests that grow with the study.
"""

import argparse
import base64
import json
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
from torch import nn

from optnas import Objective, Trial, create_study, optimize, record, scope
from optnas.dashboard.serve import make_server
from optnas.space.blocks import conv, head, mbconv, residual
from optnas.storage.open import open_storage

READY = """
const done = arguments[0];
const look = () => {
    const images = [...document.querySelectorAll('img')].filter(i => i.complete && i.naturalWidth);
    const all = ['/optnas/curves/', '/artifacts/'].every(part => images.some(i => i.src.includes(part)));
    if (all && document.body.innerText.includes('Outcome')) done(performance.now());
    else setTimeout(look, 10);
};
look();
"""
ASKED = "return performance.getEntriesByType('resource').find(e => e.name.includes('/api/meta')).startTime;"


def space(trial: Trial) -> nn.Module:
    layers: list[nn.Module] = [conv(scope(trial, "stem"), width=(8, 16, 32), kernel=3)]
    for i in range(trial.suggest_int("depth", 1, 4)):
        block = scope(trial, "block", i)
        op = {"conv": conv, "mbconv": mbconv}[block.suggest_categorical("op", ["conv", "mbconv"])]
        layers.append(residual(block, lambda t, op=op: op(t, width=(8, 16, 32))))
    return nn.Sequential(*layers, head(scope(trial, "head"), n_classes=10))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    loss = 1 / sum(p.numel() for p in model.parameters())
    for epoch in range(15):
        trial.report(loss + 1 / (epoch + 1), epoch)
    return {"val_loss": loss, "val_acc": 1 - loss}


class Browser:
    """A new Chromium, told over chromedriver's HTTP interface."""

    def __init__(self, driver: str, width: int, height: int) -> None:
        arguments = [f"--window-size={width},{height}", "--headless", "--disable-gpu", "--no-sandbox"]
        options: dict[str, Any] = {"goog:chromeOptions": {"args": [*arguments, "--hide-scrollbars"]}}
        options |= {"timeouts": {"script": 60_000}}
        session = self._ask(f"{driver}/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"{driver}/session/{session['sessionId']}"

    def open(self, url: str) -> float:
        """Seconds until the page shows all."""
        self._ask(f"{self._session}/url", {"url": url})
        return float(self.run(READY, "async")) / 1000

    def run(self, script: str, how: str = "sync") -> Any:
        return self._ask(f"{self._session}/execute/{how}", {"script": script, "args": []})

    def processor_seconds(self) -> float:
        """Of the page's main thread until now; the first call begins to count."""
        self._tell("Performance.enable", timeDomain="threadTicks")
        metrics = self._tell("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))

    def _tell(self, command: str, **parameters: Any) -> Any:
        return self._ask(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self) -> bytes:
        return base64.b64decode(self._ask(f"{self._session}/screenshot"))

    def close(self) -> None:
        self._ask(self._session, method="DELETE")

    def _ask(self, url: str, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]


def seconds(url: str) -> float:
    started = time.perf_counter()
    with urllib.request.urlopen(url, timeout=120) as answer:
        answer.read()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--opens", type=int, default=5)
    parser.add_argument("--storage", help="of a study to open instead; its only one")
    parser.add_argument("--screenshot", type=Path)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        if options.storage:
            storage = open_storage(options.storage)
            study = optuna.load_study(study_name=None, storage=storage)
        else:
            objective = Objective(space, estimate, values={"val_loss": "minimize"}, example=(2, 1, 8, 8))
            random = optuna.samplers.RandomSampler(seed=0)
            study = create_study(objective, storage=f"sqlite:///{folder}/nas.db", seed=0, sampler=random)
            study.set_user_attr(record.FOLDER.name, folder)
            optimize(study, objective, options.trials)
        measure(study, options.opens, options.screenshot)


def measure(study: optuna.Study, n_opens: int, screenshot: Path | None) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["chromedriver", f"--port={port}", "--log-level=OFF"]
    with (
        make_server(study._storage, "127.0.0.1", 0) as server,
        subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            while driver.poll() is None:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            best = study.best_trial.number
            other = next(t.number for t in study.trials if t.intermediate_values and t.number != best)
            page = f"{url}/dashboard/studies/{study._study_id}/trials?numbers="
            times: dict[str, list[float]] = {}
            for _ in range(n_opens):
                browser = Browser(f"http://127.0.0.1:{port}", 1280, 1600)
                before, server_before = browser.processor_seconds(), time.process_time()
                times.setdefault("page of a trial in a new browser", []).append(browser.open(f"{page}{best}"))
                times.setdefault("... of which the script starts", []).append(browser.run(ASKED) / 1000)
                used = browser.processor_seconds() - before
                times.setdefault("processor time: its main thread", []).append(used)
                times.setdefault("processor time: the server", []).append(time.process_time() - server_before)
                if screenshot is not None:
                    screenshot.write_bytes(browser.screenshot())
                times.setdefault("page of another trial", []).append(browser.open(f"{page}{other}"))
                browser.close()
                for name, request in {
                    "request: the study with all notes": f"{url}/api/studies/{study._study_id}?after=0",
                    "request: a learning curve": f"{url}/optnas/curves/{study._study_id}/{best}.svg",
                }.items():
                    times.setdefault(name, []).append(seconds(request))
            print(f"\n| s, median of {n_opens} (most), {len(study.trials)} trials | |\n|---|---|")
            for name, found in times.items():
                print(f"| {name} | {statistics.median(found):.2f} ({max(found):.2f}) |")
        finally:
            driver.terminate()
            server.shutdown()


if __name__ == "__main__":
    main()
