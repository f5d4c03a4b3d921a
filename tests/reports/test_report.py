"""A report says what the study has, needs nothing from outside, and shows in a browser as it should."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from torch import nn

from optnas import record
from optnas.hub.nasbench201 import cell
from optnas.objective import Objective
from optnas.reports.report import report
from optnas.search.optimize import optimize
from optnas.search.study import create_study
from optnas.space.explore import sample
from optnas.trial import Trial, scope

Browse = Callable[[str], tuple[str, list[str]]]

MEASURE = """setTimeout(() => {
  const widths = [document.body.scrollWidth];
  document.querySelectorAll(".plot .main-svg:first-child").forEach(svg => widths.push(svg.clientWidth));
  document.body.dataset.widths = widths.join(" ");
}, 2000)"""
EVIL = "</script><img src=x onerror=alert(1)>"


def space(trial: Trial) -> nn.Module:
    layers = [nn.Flatten()]
    width = 16
    for i in range(trial.suggest_int("depth", 1, 3)):
        out = scope(trial, "block", i).suggest_int("width", 8, 24, step=8)
        layers += [nn.Linear(width, out), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, 2))


def estimate(model: nn.Module, trial: optuna.Trial) -> dict[str, float]:
    score = -float(sum(p.numel() for p in model.parameters()))
    for step in range(3):
        trial.report(score * (3 - step), step)
    if trial.number % 9 == 8:
        raise optuna.TrialPruned
    if trial.number % 9 == 7:
        raise RuntimeError(EVIL)
    return {"score": score}


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(space, estimate, values={"score": "maximize"}, example=(2, 4, 4), reuse_twins=False)


@pytest.fixture(scope="module")
def searched(objective: Objective) -> optuna.Study:
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.RandomSampler(seed=1), study_name=f"{EVIL} <b>&"
    )
    study.optimize(objective, 30, catch=(RuntimeError,))
    number = study.best_trial.number
    runs = [{"score": 1.0, "test": 0.25}, {"score": 2.0, "test": 0.75}]
    record.write_retrained(study, number, None, runs)
    study.set_user_attr(record.SEED.name, 77)
    study.set_user_attr(record.PROVENANCE.name, {"data": EVIL})
    return study


def sections(html: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", html)


def test_every_section_is_there_and_what_the_study_says_is_escaped(
    searched: optuna.Study, objective: Objective, tmp_path: Path
) -> None:
    path = report(searched, tmp_path / "report.html", objective)
    html = path.read_text()
    assert sections(html) == [
        *("Summary", "Best architecture", "Leaderboard", "Trained anew", "History", "Learning curves"),
        *("Cost", "Decisions", "Importance", "Timeline", "Explanation", "How to reproduce"),
    ]
    best = searched.best_trial
    assert f"The largest value is {best.value:.5g}, of trial {best.number}." in html
    assert "30 trials: 24 complete, 3 pruned, 3 failed." in html
    assert "1.5000 ± 0.7071" in html
    assert f"{best.user_attrs['n_params']:,} parameters</text>" in html
    assert path.stat().st_size < 10_000_000
    assert html.count("Plotly.newPlot(") == html.count('class="plot"') == 6
    assert EVIL not in html
    assert "<b>&" not in html
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", html)


def test_a_browser_shows_it_on_a_phone_without_errors_or_requests(
    searched: optuna.Study, objective: Objective, tmp_path: Path, browse: Browse
) -> None:
    path = report(searched, tmp_path / "report.html", objective)
    html = path.read_text().replace("<body>", '<body style="width: 400px">')  # windows are 500 at least
    path.write_text(html.replace("</body>", f"<script>{MEASURE}</script></body>"))
    # The page's policy forbids every request; a violation is written to the console, as any error is.
    dom, console = browse(path.as_uri())
    assert console == []
    [widths] = re.findall(r'data-widths="([\d. ]+)"', dom)
    page, *plots = map(float, widths.split())
    assert page <= 400
    assert len(plots) == 6
    assert all(200 < width <= 400 for width in plots)
    assert sections(dom)[-1] == "How to reproduce"
    assert dom.count('class="main-svg"') >= 6


def test_text_has_words_and_tables_only(searched: optuna.Study, tmp_path: Path) -> None:
    text = report(searched, tmp_path / "report.md").read_text()
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings[:4] == ["Summary", "Best architecture", "Leaderboard", "Trained anew"]
    assert headings[-2:] == ["Explanation", "How to reproduce"]
    assert "<svg" not in text
    assert not re.search(r"(?<!\\)<", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    params = re.findall(r"replay\((.*)\)\)", text)
    assert literal_eval(params[0]) == searched.best_trial.params


def test_a_study_that_has_nothing_yet_gets_a_short_report(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="new")
    html = report(study, tmp_path / "report.html").read_text()
    assert sections(html) == ["Summary", "How to reproduce"]
    assert "No trial has a value yet." in html
    assert "Plotly" not in html
    study.add_trial(
        create_trial(
            state=TrialState.FAIL,
            user_attrs={record.REASON.name: {"kind": "error", "words": "ValueError: no"}},
        )
    )
    assert "1 failed: ValueError: no" in report(study, tmp_path / "report.html").read_text()
    study.add_trial(create_trial(value=1.0))
    assert "The smallest value is 1, of trial 1." in report(study, tmp_path / "report.html").read_text()


def test_the_summary_says_what_the_best_reached_when_trained_anew(
    objective: Objective, tmp_path: Path
) -> None:
    study = create_study(objective, study_name="anew", seed=5)
    optimize(study, objective, 3, show_progress=False)
    best = study.best_trial.number
    runs = [{"score": 1.0}, {"score": 2.0}]
    record.write_retrained(study, (best + 1) % 3, None, runs)
    assert "optnas best STUDY.py --retrain 5 will show." in report(study, tmp_path / "a.html").read_text()
    record.write_retrained(study, best, 30, runs)
    text = report(study, tmp_path / "a.html").read_text()
    assert "partly luck. Trained anew it reached 1.5000 ± 0.7071 (30 epochs, 2 seeds)." in text


def test_an_objective_that_no_longer_fits_costs_only_the_drawing(
    searched: optuna.Study, tmp_path: Path
) -> None:
    def other(trial: Trial) -> nn.Module:
        return nn.Linear(16, trial.suggest_int("width", 1, 2))

    assert sample(other, 0)
    changed = Objective(other, estimate, values={"score": "maximize"}, example=(2, 16))
    html = report(searched, tmp_path / "report.html", changed).read_text()
    assert "It could not be drawn: " in html
    assert "Importance" in sections(html)


def test_a_search_from_the_seed_in_the_report_gives_the_same_trials(
    objective: Objective, tmp_path: Path
) -> None:
    study = create_study(objective, study_name="first", seed=5)
    optimize(study, objective, 6, show_progress=False)
    text = report(study, tmp_path / "report.md").read_text()
    [code] = re.findall(r"```\n(import optnas\n.*?)```", text, flags=re.DOTALL)
    names = {"objective": objective}
    exec(code, names)
    again = names["study"]
    assert again.study_name == "first-again"
    assert [t.params for t in again.trials] == [t.params for t in study.trials]
    assert [t.values for t in again.trials] == [t.values for t in study.trials]


def test_cells_are_drawn_without_the_objective(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="cells", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: cell(trial).count("none"), 2)
    html = report(study, tmp_path / "report.html").read_text()
    [figure] = re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)
    assert "The cell edge" in figure
    assert all(f"<title>{op}</title>" in figure for op in study.best_params.values())
    assert "<th>trial</th><th>value</th></tr>" in html  # a leaderboard without costs


@pytest.fixture
def two() -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0), study_name="two"
    )
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["score", "cost"])

    def values(trial: optuna.Trial) -> tuple[float, float]:
        width = trial.suggest_int("width", 1, 9)
        if trial.suggest_categorical("op", ["conv", "pool"]) == "conv":
            trial.suggest_int("kernel", 1, 3)
        if trial.number == 7:
            raise RuntimeError("no luck")
        return width + trial.params.get("kernel", 0.0), float(width**2)

    study.optimize(values, 30, catch=(RuntimeError,))
    return study


def test_several_objectives_get_a_front_and_what_explains_each(two: optuna.Study, tmp_path: Path) -> None:
    html = report(two, tmp_path / "report.html").read_text()
    assert sections(html) == [
        *("Summary", "Front", "Best architectures", "History", "Decisions", "Importance", "Timeline"),
        *("Explanation: distance to the front", "Explanation: score", "Explanation: cost"),
        "How to reproduce",
    ]
    assert "score (larger is better) and cost (smaller is better)" in html
    assert f"{len(two.best_trials)} trials on the front" in html
    front = html[html.index('id="front"') : html.index('id="best-architectures"')]
    assert set(re.findall(r"<tr><td>(\d+)</td>", front)) == {str(t.number) for t in two.best_trials}
    headings = re.findall(r"<h3>([^<]*)</h3>", html)
    assert headings[:6] == [
        *("Hypervolume", "Best in score", "Best in cost", "Knee of the front", "score", "cost"),
    ]
    assert headings[6:9] == ["score", "cost", "distance to the front"]
    assert html.count("Plotly.newPlot(") == 9
    text = report(two, tmp_path / "report.md").read_text()
    assert re.findall(r"^## (.*)", text, re.MULTILINE)[:3] == ["Summary", "Front", "Best architectures"]
    assert f"{len(two.best_trials)} of 29 finished trials are on the front" in text
    assert "has the best cost, 1, of 29 finished trials" in text
    # A decision that only one objective feels: the cost does not see the kernel.
    shares = {}
    for part in text.partition("## Importance")[2].partition("\n## ")[0].split("### ")[1:]:
        name, _, table = part.partition("\n")
        shares[name] = dict(re.findall(r"^\| (\w+) \| ([0-9.]+) \|", table, re.MULTILINE))
    assert float(shares["cost"]["kernel"]) < 0.05 < float(shares["score"]["kernel"])
    assert float(shares["cost"]["width"]) > 0.9


def test_of_several_objectives_what_trials_reported_and_reached_anew_is_shown(tmp_path: Path) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        study.set_metric_names(["score", "cost"])
    reports = {record.REPORTS.name: {"0": {"score": 0.1}, "1": {"score": 0.2}}}
    for i in range(3):
        study.add_trial(create_trial(values=[i, i], user_attrs=reports))
    record.write_retrained(study, 2, None, [{"score": 1.0}, {"score": 2.0}])
    html = report(study, tmp_path / "report.html").read_text()
    curves = html.partition('id="learning-curves"')[2].partition("</section>")[0]
    assert (curves.count("<h3>"), curves.count("Plotly.newPlot(")) == (1, 1)
    assert "1.5000 ± 0.7071" in html
    assert "Importance" not in sections(html)  # of three trials


def test_several_objectives_without_a_result(tmp_path: Path) -> None:
    study = optuna.create_study(directions=["minimize"] * 3)
    html = report(study, tmp_path / "report.html").read_text()
    assert sections(html) == ["Summary", "How to reproduce"]
    assert "No trial has a value yet." in html


def test_a_study_that_cannot_be_explained_says_why_and_an_error_stands_where_the_section_would(
    tmp_path: Path,
) -> None:
    study = optuna.create_study(study_name="broken", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: 1e200 * trial.suggest_float("x", 0, 1), 12)
    text = report(study, tmp_path / "report.md").read_text()
    assert "too much to be explained" in text[text.index("## Explanation") :]
    attempt = {"host": "a", "pid": 1, "started": 1.0, "ended": "late"}  # no number to draw a bar to
    study.add_trial(create_trial(value=0.0, user_attrs={record.ATTEMPTS.name: [attempt]}))
    text = report(study, tmp_path / "report.md").read_text()
    assert "This could not be shown: TypeError" in text[text.index("## Timeline") :]
    assert "## How to reproduce" in text


def test_mistakes_are_named(searched: optuna.Study, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.html or \.md"):
        report(searched, tmp_path / "report.pdf")


def test_long_names_and_answers_push_nothing_out_of_sight(tmp_path: Path, browse: Browse) -> None:
    study = optuna.create_study(study_name="long", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda t: t.suggest_float("n" * 200, 0, 1) + len(t.suggest_categorical("op", ["a" * 300, "b"])), 12
    )
    path = report(study, tmp_path / "report.html")
    script = """document.body.dataset.hidden =
      [...document.querySelectorAll(".scroll")].map(e => e.scrollWidth - e.clientWidth).join(" ")"""
    path.write_text(path.read_text().replace("</body>", f"<script>{script}</script></body>"))
    dom, _ = browse(path.as_uri())
    [hidden] = re.findall(r'data-hidden="([^"]*)"', dom)
    assert all(int(pixels) <= 1 for pixels in hidden.split())  # which rounding may cost


def test_cheap_estimates_stand_beside_what_costs_nothing(tmp_path: Path) -> None:
    study = optuna.create_study(direction="maximize")
    for i in range(12):
        facts = {"n_params": i % 5, "naswot": float(i)}
        study.add_trial(create_trial(value=i, user_attrs={record.FACTS.name: facts}))
    record.write_fact_kinds(
        study,
        {
            "n_params": record.FactKind("n_params", "parameters", "", "lower"),
            "naswot": record.FactKind("naswot", "NASWOT", "", "higher"),
        },
    )
    text = report(study, tmp_path / "r.md").read_text()
    section = text.partition("## Cheap estimates")[2].partition("\n## ")[0]
    assert "NASWOT ranks better than parameters" in section
    assert "| NASWOT | 1.00 (1.00 to 1.00)" in section
    assert "| parameters |" in section
