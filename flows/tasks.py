"""The stages of the line as Prefect tasks: each calls one function of `pipeline/` and returns its small frozen value."""

import json
import secrets
from pathlib import Path

from prefect import get_run_logger, task

from flows import runners, stages, takeover
from flows.outcome import Gate, Outcome
from flows.parameters import Finetune
from pipeline import approval, facts, gates, models, policy, resume, retention, runs, storage, waivers
from pipeline import audit as attacks
from pipeline import corpus as corpora
from pipeline import intake as intakes
from pipeline import release as releases
from pipeline import report as reports
from pipeline import scrub as scrubbing
from pipeline.audit import Evidence
from pipeline.canaries import Planted
from pipeline.canaries import plant as plant_canaries
from pipeline.commands.common import quiet
from pipeline.corpus import Corpus
from pipeline.display import Line
from pipeline.folders import Value, digest, write_json, write_text
from pipeline.gates import Verdict
from pipeline.intake import Intake
from pipeline.ledger import Ledger, Standing
from pipeline.models import Base
from pipeline.policy import Policy
from pipeline.release import Release
from pipeline.reserve import Plan
from pipeline.reserve import reserve as take
from pipeline.runs import Run
from pipeline.scrub import Scrubbed
from pipeline.scrub.probes import write_probes
from pipeline.strictness import check_name
from pipeline.train import continued, launch, selection
from pipeline.train.loop import Trained, rehearse
from pipeline.train.loop import train as train_adapter


class Opened(Value):
    """A run to work on: its folder, its rules, its base model, and the files that it reads."""

    run: Run
    rules: Policy
    base: Base
    intake: Intake


@task(name="open", **stages.BARE)
def open_run(job: Finetune) -> Opened | None:
    """Take up the run named, or the interrupted one of the same identity, or begin another; None where nothing is new."""
    return stages.clean("open", None, lambda: _opened(job))


def _opened(job: Finetune) -> Opened | None:
    quiet()
    rules = policy.load(job.policy).override(model=job.base_model)
    check_name(rules)
    home = runs.open_home(job.folder)
    data = storage.local(job.data, home)
    name, base = job.name or runs.name_for(data), models.resolve(rules.model, home)
    if job.run is not None:
        run = runs.start(home, name, job.run)
        runs.hold(run.folder)
        began = intakes.kept(run.folder)
        files = began if began and began.path == data.expanduser().absolute() else intakes.of(data)
    else:
        found = resume.open_run(home, name, rules, data, incremental=job.incremental)
        if found is None:
            return None
        run, files = found.run, found.intake
        for sentence in found.said:
            get_run_logger().info(sentence)
    stages.rename(run)
    takeover.take_over(run)
    runs.keep_policy(run.folder, rules)
    facts.start(run.folder, f"hushtune run {data.name} --policy {rules.name} --name {run.name}")
    return Opened(run=run, rules=rules, base=base, intake=files)


@stages.stage("read")
def read(line: Line, run: Run, rules: Policy, intake: Intake) -> Corpus:
    """Read the data into the run's folder."""
    intakes.check_unchanged(intake)
    corpus = corpora.read(intake, rules, run.folder / "corpus", progress=line)
    files = f" in {len(intake.files)} files" if intake.is_folder else ""
    line.say(f"{corpus.records:,} records of {corpus.units:,} {'people' if corpus.has_units else 'records'}{files}")
    return corpus


@stages.stage("probe")
def probe(line: Line, run: Run, rules: Policy) -> Path | None:
    """Write known personal values that the scrubber must find, if the policy asks for them."""
    path = run.folder / "probes.jsonl"
    count = _probes(path, rules)
    line(count, rules.scrub.probes)
    return path if count else None


def _probes(path: Path, rules: Policy) -> int:
    """Every run plants values of its own, so that no detector can be fitted to them; a run taken up again keeps its own."""
    if path.exists():
        return path.read_text(encoding="utf-8").count("\n")
    return write_probes(path, rules.scrub.probes, seed=secrets.randbits(32), entities=rules.scrub.entities)


@stages.stage("scrub")
def scrub(line: Line, run: Run, rules: Policy, corpus: Corpus, probes: Path | None) -> Scrubbed:
    """Replace personal data."""
    key = scrubbing.key_for(rules, run.home)
    mapper = runners.mapper(run.folder, "scrub")
    scrubbed = scrubbing.scrub(corpus, rules, run.folder / "scrubbed", probes=probes, progress=line, key=key, mapper=mapper)
    found = sum(scrubbed.entities.values())
    recall = next((entity for entity in scrubbed.recall if entity.entity == "ALL"), None)
    tail = f", recall at least {recall.low:.1%}" if recall else ""
    line.say(f"{found:,} values replaced in {scrubbed.changed:,} records{tail}")
    rows = [{"entity": entity, "replaced": count} for entity, count in sorted(scrubbed.entities.items())]
    stages.table(run, "scrub", rows, "Personal data replaced, by type")
    return scrubbed


@stages.stage("pretrain")
def continue_pretraining(line: Line, run: Run, rules: Policy, corpus: Corpus, base: Base) -> Base:
    """Train the base model on the policy's public text, in which no private record may stand."""
    adapted = continued.adapt(base, rules, corpus, run.folder, run.home, progress=line)
    if adapted.adaptation is not None:
        before, after = adapted.adaptation.loss
        line.say(f"{adapted.adaptation.tokens:,} public tokens, loss {before:.3f} to {after:.3f}")
    return adapted


@stages.stage("plant")
def plant(line: Line, run: Run, rules: Policy, scrubbed: Scrubbed, base: Base) -> Planted:
    """Hold records out, flip the canaries' coins, and seal the manifest."""
    planted = plant_canaries(scrubbed, base, rules, run.folder / "planted", progress=line)
    line.say(f"{planted.secrets} canaries drawn, {planted.held_out_records:,} records held out")
    return planted


@stages.stage("reserve")
def reserve(line: Line, run: Run, rules: Policy, corpus: Corpus, planted: Planted, base: Base) -> Plan:
    """Calibrate the noise and take the whole planned mechanism out of the lifetime budget."""
    rehearse(planted, base, rules)  # refuses what training would, before it is paid for
    selection.check(rules, run.folder / "corpus" / "records.jsonl", run.folder)
    plan = take(run, rules, corpus, planted)
    mechanism = plan.mechanism
    line.say(f"σ {mechanism.noise_multiplier:g}, q {mechanism.sampling_rate:.2g}, {mechanism.steps} steps")
    row = mechanism.model_dump(mode="json") | {"sampling_rate": mechanism.sampling_rate}
    stages.table(run, "mechanism", [row], "Mechanism reserved in the ledger")
    return plan


@stages.stage("train")
def train(
    line: Line, run: Run, rules: Policy, planted: Planted, base: Base, plan: Plan, processes: int
) -> tuple[Trained, Standing]:
    """Train under DP-SGD, every step in the ledger before it touches a weight; also says where the budget then stands."""
    ledger, claim = Ledger(run.home), plan.claim
    if processes == 1 and not launch.machines():
        trained = train_adapter(
            planted,
            base,
            plan.mechanism,
            rules,
            run.folder / "trained",
            claim=claim.id,
            spend=lambda steps: ledger.spend(claim, steps),
            taken=ledger.taken(claim),
            progress=line,
        )
    else:
        trained = launch.train(run.folder, processes, line)
    ledger.close(claim, trained.steps)
    standing = ledger.standing(claim.budget, lifetime=rules.privacy.lifetime)
    write_json(run.folder / "standing.json", standing.model_dump(mode="json"))
    line.say(f"ε {trained.epsilon:.3f}, {trained.tokens_per_second:,.0f} tokens/s, gradients {trained.gradients}")
    return trained, standing


@stages.stage("audit")
def audit(
    line: Line, run: Run, rules: Policy, corpus: Corpus, scrubbed: Scrubbed, planted: Planted, trained: Trained
) -> Evidence:
    """Attack the candidate."""
    ledger = Ledger(run.home)
    registered = planted.manifest_digest in ledger.manifests(run.id)
    evidence = attacks.audit(
        planted, trained, scrubbed, rules, run.folder / "evidence", registered=registered, corpus=corpus, progress=line
    )
    ledger.note_once(run.id, "evidence", {"digest": gates.seal(evidence)})  # an audit is not drawn until one passes
    line.say(f"{len(evidence.figures)} figures")
    rows = [
        {"figure": name, "value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
        for name, figure in sorted(evidence.figures.items())
    ]
    stages.table(run, "evidence", rows, "Figures of the audit")
    return evidence


@stages.stage("judge")
def judge(line: Line, run: Run, rules: Policy, evidence: Evidence) -> Verdict:
    """Hold the evidence against the policy's gates."""
    ledger = Ledger(run.home)
    ledger.note_once(run.id, "evidence", {"digest": gates.seal(evidence)})
    if releases.of_run(run.home, run.name, run.id) is not None:
        # A kill came after the release: what was judged then stands, whatever waiver has run out since.
        verdict = Verdict.model_validate_json((run.folder / "verdict.json").read_bytes())
    else:
        verdict = gates.judge(rules, evidence, waivers.load(run.home, rules, ledger), ledger.now().date())
        write_json(run.folder / "verdict.json", verdict.model_dump(mode="json"))
    line.say(verdict.status.replace("_", " "))
    rows = [result.model_dump(mode="json", exclude={"owner"}) for result in verdict.gates]
    stages.table(run, "gates", rows, f"Gates: {verdict.status}")
    return verdict


@stages.stage("report")
def report(
    line: Line,
    run: Run,
    rules: Policy,
    corpus: Corpus,
    scrubbed: Scrubbed,
    planted: Planted,
    trained: Trained,
    evidence: Evidence,
    verdict: Verdict,
    standing: Standing,
) -> Path:
    """Write report.json and report.html."""
    path, marker = run.folder / "report" / "report.html", run.folder / "report.sha256"
    judged = digest([evidence.digest, verdict.model_dump(mode="json"), trained.adapter_digest, rules.digest])
    # A report that may be part of a release already stays as it is, or the release would be made twice.
    if not (path.exists() and marker.exists() and marker.read_text() == judged):
        known = facts.for_report(run.folder) | reports.keep(run.folder, run.home, rules, corpus, trained, verdict)
        content = reports.build(rules, corpus, scrubbed, planted, trained, evidence, verdict, standing, known)
        path = reports.write(content, run.folder / "report")
        write_text(marker, judged)
    line.say(path.name)
    stages.page(run, "report", _page(path), "Report")
    return path


@stages.stage("publish")
def publish(line: Line, run: Run, rules: Policy, base: Base, trained: Trained, page: Path) -> Release:
    """Put adapter, report, policy and model card into a release whose bytes can be verified."""
    made = releases.publish(run.folder, run.name, trained, page.parent, rules, run.home, _card(page, base))
    line.say(f"{made.name} {made.version}")
    return made


@stages.stage("hold", row="publish")
def hold(line: Line, run: Run, rules: Policy, base: Base, trained: Trained, page: Path) -> Path:
    """Keep the bytes that a person's approval will publish."""
    candidate = approval.hold(run.folder, run.name, trained, page.parent, rules, _card(page, base))
    line.say("kept until it is approved")
    return candidate


@stages.stage("discard", row="publish")
def discard(line: Line, run: Run, rules: Policy) -> int:
    """Delete the weights of a run that is not released, unless the policy keeps them for a while."""
    found = retention.discard(run.folder, rules, Ledger(run.home))
    days = rules.release.quarantine_days
    line.say(f"weights kept for {days} days" if days else "weights deleted")
    return len(found)


def _page(path: Path) -> str:
    """What Prefect shows of a report: verdict, the same table of gates, and where the page is."""
    content = json.loads((path.parent / "report.json").read_text(encoding="utf-8"))
    verdict = content["verdict"]
    link = f"[{path.name}]({path.absolute().as_uri()}): `{path}`"
    return f"# {verdict['label']}\n\n{verdict['sentence']}\n\n{reports.gate_table(content)}\n\n{link}"


def _card(page: Path, base: Base) -> str:
    return reports.card(json.loads((page.parent / "report.json").read_text(encoding="utf-8")), base)


def outcome(
    run: Run, rules: Policy, trained: Trained, verdict: Verdict, standing: Standing, page: Path, made: Release | None
) -> Outcome:
    """Gather what the closing table, the JSON line and the flow's final state show; from here on the run has ended."""
    sides = {name: "≤" if gate.at_most is not None else "≥" for name, gate in rules.gates.items()}
    ended = Outcome(
        status=verdict.status,
        name=run.name,
        run=run.id,
        folder=run.folder,
        version=made.version if made else None,
        release=made.folder if made else None,
        report=made.folder / "report.html" if made else page,
        policy=rules.name,
        policy_digest=rules.digest,
        epsilon=trained.epsilon,
        delta=trained.delta,
        unit=trained.mechanism.unit,
        adjacency=trained.mechanism.adjacency,
        budget=standing.budget,
        lifetime_spent=standing.epsilon_spent,
        lifetime_cap=standing.epsilon_cap,
        gates={
            gate.name: Gate(
                passed=gate.passed, value=gate.value, bound=gate.bound, limit=gate.limit, rule=sides[gate.name], why=gate.why
            )
            for gate in verdict.gates
        },
        reasons=verdict.reasons,
        seconds=facts.read(run.folder)["seconds"],
    )
    write_json(run.folder / "outcome.json", ended.model_dump(mode="json"))
    return ended
