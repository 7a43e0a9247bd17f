#!/usr/bin/env python3
"""The runtime's side of the connector protocol, in the standard library alone. README.md says how to use it.

It shares no code with Sluice: a second reading of the protocol, to find out whether a connector speaks it or merely agrees with our own runtime.
"""
import argparse, base64, json, sys, threading

from conversation import Peer, emit
from wire import Violation, at_pointer, compact, merge, pack, reduce_state


def call(o, request):
    """One request in a process of its own, which must end by itself when its input does."""
    p = Peer(o)
    spec = p.spec()
    if request is None:
        answer = ("spec", spec)
    else:
        p.send(request)
        answer = p.read(o.timeout)
    p.control("close")
    if answer is None or p.read(o.timeout) is not None:
        raise Violation(p.ended()[1] if answer is None else "a second answer came")
    if (code := p.ended()[0]) != 0:
        raise Violation(f"exit code {code} after an answer")
    return answer[1]


def state_key(path, backfill):
    keep = "-_+.="
    quoted = "%2F".join("".join(c if c.isalnum() or c in keep else "".join(f"%{b:02X}" for b in c.encode()) for c in part) for part in path)
    return quoted + (f".v{backfill}" if backfill else "")


def collection(name, key, schema):
    """A collection as validators of other SDKs want it: sorted projections, a partition template."""
    required, projections = schema.get("required", []), [{"field": "flow_document", "inference": {"types": ["object"], "exists": "MUST"}}]
    for field, sub in schema.get("properties", {}).items():
        types = sub.get("type", ["array", "boolean", "integer", "null", "number", "object", "string"])
        inference = {"types": sorted([types] if isinstance(types, str) else types), "exists": "MUST" if field in required else "MAY"}
        if "string" in inference["types"]:
            inference["string"] = {"format": sub.get("format", "")}
        pointer = "/" + field.replace("~", "~0").replace("/", "~1")
        projections.append({"ptr": pointer, "field": field, "isPrimaryKey": pointer in key, "inference": inference})
    for pointer in set(key) - {p.get("ptr") for p in projections}:
        projections.append({"ptr": pointer, "field": pointer[1:], "isPrimaryKey": True, "inference": {"types": ["integer"], "exists": "MUST"}})
    fragment = {"length": "16777216", "compressionCodec": "GZIP", "refreshInterval": "300s"}
    return {"name": name, "key": key, "uuidPtr": "/_meta/uuid", "projections": sorted(projections, key=lambda p: p["field"]), "writeSchema": schema,
            "partitionTemplate": {"name": name + "/0000000000000000", "replication": 1, "fragment": fragment}}


def link(form, spec):
    """The spec with its collections beside its bindings, if that form is asked for."""
    if form != "indirect":
        return spec
    out = dict(spec, bindings=[{k: v for k, v in dict(b, collectionIndex=i).items() if k != "collection" and v != 0} for i, b in enumerate(spec["bindings"])])
    return dict(out, linkedCollections=[b["collection"] for b in spec["bindings"]])


def sealed(spec):
    """A last spec: its configuration stays in the endpoint's wrapper."""
    return dict(spec, config={"image": "example/connector:v1", "config": spec["config"]})


def discover(o, config):
    spec = call(o, None)
    found = call(o, {"discover": {"connectorType": "IMAGE", "config": config} | ({} if o.form == "legacy" else {"name": o.task})})
    for b in found.get("bindings", []):
        b["path"] = b.get("resourcePath") or [str(v) for p in spec["resourcePathPointers"] if (v := at_pointer(b["resourceConfig"], p))]
    return found.get("bindings", [])


def build(o, noun, config, wanted, finish):
    """Validate and Apply, as the control plane does them; the applied spec."""
    ask = {"name": o.task, "connectorType": "IMAGE", "config": config, "bindings": wanted}
    last = sealed(json.load(open(o.last))) if o.last else None
    if last:
        ask |= {"last" + noun.capitalize(): link(o.form, last), "lastVersion": "1"}
    validated = call(o, {"validate": link(o.form, ask)})
    emit("validated", validated)
    if len(validated.get("bindings", [])) != len(wanted):
        raise Violation("validated has not as many bindings as the request")
    bindings = []
    for want, got in zip(wanted, validated["bindings"]):
        backfill = want.get("backfill", 0)
        bindings.append(want | {"resourcePath": got["resourcePath"], "stateKey": state_key(got["resourcePath"], backfill)} | finish(want, got))
    spec = {"name": o.task, "connectorType": "IMAGE", "config": config, "bindings": bindings} | ({"intervalSeconds": 300} if noun == "capture" else {})
    state, patch = {}, True
    while patch:
        apply = {noun: link(o.form, spec), "version": "2", "state": state}
        if last:
            apply |= {"last" + noun.capitalize(): link(o.form, last), "lastVersion": "1"}
        applied = call(o, {"apply": apply})
        emit("applied", applied)
        patch = applied.get("state")
        state = reduce_state(state, patch)
    return spec


def open_session(o, noun, spec, state):
    p = Peer(o)
    p.spec()
    everything = {"keyBegin": 0, "keyEnd": 0xFFFFFFFF, "rClockBegin": 0, "rClockEnd": 0xFFFFFFFF}
    p.send({"open": {noun: link(o.form, spec), "version": "2", "range": everything, "state": state}})
    opened = p.expect("opened")
    emit("opened", opened)
    return p, opened


def obey(p):
    for line in sys.stdin:
        p.control(line)


def capture(o, config):
    if o.spec:
        spec = json.load(open(o.spec))
    else:
        wanted = [{"resourceConfig": b["resourceConfig"], "collection": collection("peer/" + b["recommendedName"], b["key"], b["documentSchema"])}
                  for b in discover(o, config) if not o.only or b["path"][-1] in o.only]
        spec = build(o, "capture", config, wanted, lambda want, got: {})
        emit("built", spec)
    state = json.loads(o.state)
    p, opened = open_session(o, "capture", spec, state)
    explicit, count, pending = opened.get("explicitAcknowledgements"), 0, 0
    if not explicit or o.acks == "close":
        p.control("close")
    threading.Thread(target=obey, args=(p,), daemon=True).start()
    while m := p.read():
        name, body = m
        if name == "checkpoint":
            state, pending = reduce_state(state, body.get("state")), 0
            body = dict(body, reduced=state)
            if explicit and o.acks == "every":
                p.send({"acknowledge": {"checkpoints": 1}})
        elif name in ("captured", "sourcedSchema", "backfillBegin", "backfillComplete"):
            pending, count = pending + 1, count + (name == "captured")
            if body.get("binding", 0) >= len(spec["bindings"]):
                raise Violation(f"{name} of binding {body['binding']}, which does not exist")
        else:
            raise Violation(f"{name} came in the middle of a capture")
        emit(name, body)
        if o.limit and count >= o.limit and not pending:
            p.control("term")
            o.limit = 0
    if pending and not p.killed:
        raise Violation(f"the stream ended with {pending} messages after the last checkpoint: {p.ended()[1]}")
    return p


def fields(want, got):
    """A field selection of all that the connector lets in, by the list of constraints and the map of old connectors."""
    listed = {}
    for c in got.get("projectionConstraints", []):
        listed.setdefault(c.get("field", ""), []).append(c["constraint"]["type"])
    if any(c["type"] not in listed.get(f, []) for f, c in got.get("constraints", {}).items()):
        raise Violation("the two forms of constraints disagree")
    kinds = {f: [c["type"]] for f, c in got.get("constraints", {}).items()} | listed
    source = want["collection"]
    pointers = {p["field"]: p.get("ptr", "") for p in source["projections"]}
    keys = [f for k in source["key"] for f, p in pointers.items() if p == k]
    values = [f for f, k in kinds.items() if pointers.get(f) and f not in keys and not {"FIELD_FORBIDDEN", "INCOMPATIBLE"} & set(k)]
    document = [f for f, p in pointers.items() if p == "" and {"FIELD_REQUIRED", "LOCATION_REQUIRED"} & set(kinds.get(f, []))]
    selection = {"keys": keys, "values": sorted(values)} | ({"document": document[0]} if document else {})
    return {"fieldSelection": selection, "deltaUpdates": got.get("deltaUpdates", False)}


def transaction(names, skip):
    """The documents of the next transaction on standard input, as [(binding, document)]; None at its end."""
    docs = []
    for line in sys.stdin:
        entry = json.loads(line)
        if isinstance(entry, list):
            docs += [(i, entry[1]) for i, n in enumerate(names) if n == entry[0]]
        elif skip > 0:
            skip, docs = skip - 1, []
        else:
            return docs
    return None


def materialize(o, config):
    wanted = [{"resourceConfig": b["resource"], "backfill": b.get("backfill", 0), "collection": collection(b["name"], b["key"], b["schema"])}
              for b in json.load(open(o.bindings))]
    spec = json.load(open(o.spec)) if o.spec else build(o, "materialization", config, wanted, fields)
    if not o.spec:
        emit("built", spec)
    state = json.loads(o.state)
    p, opened = open_session(o, "materialization", spec, state)
    # The position is the count of transactions that were committed. A checkpoint that is there counts, even an empty one.
    done = int(opened.get("runtimeCheckpoint", {}).get("sources", {}).get("peer", {}).get("readThrough", 0)) if "runtimeCheckpoint" in opened else o.position
    skip, names = done, [b["collection"]["name"] for b in spec["bindings"]]
    while True:
        p.txn += 1
        p.send({"acknowledge": {}})
        docs = transaction(names, skip)
        skip = 0
        if docs is None:
            p.control("close")
            state = reduce_state(state, p.expect("acknowledged").get("state"))
            if (m := p.read(o.timeout)) is not None:
                raise Violation(f"{m[0]} came after the last Acknowledged")
            return p
        done += 1
        patches = store(o, p, spec, docs, done)
        for patch in patches:
            state = reduce_state(state, patch)
        emit("stored", {"transactions": done, "state": state})


def keyed(o, binding, doc):
    """A document's key, as its text and in the form that goes on the wire: packed for protobuf and for old runtimes' JSON."""
    key = [at_pointer(doc, k) for k in binding["collection"]["key"]]
    return compact(key), form(o, "key", key)


def form(o, name, values):
    if o.codec == "json" and not o.packed:
        return {name: values}
    return {name + "Packed": base64.b64encode(pack(values)).decode()}


def fold(schema, old, new):
    """Reduction: properties are summed where the schema says so, otherwise the last one wins."""
    out = merge(old, new)
    for name, sub in schema.get("properties", {}).items():
        if sub.get("reduce", {}).get("strategy") == "sum" and name in old and name in new:
            out[name] = old[name] + new[name]
    return out


def store(o, p, spec, docs, done):
    """One transaction after its Acknowledge. Gives the state patches of Acknowledged, Flushed and StartedCommit."""
    combined = {}
    for i, doc in docs:
        text, wire = keyed(o, spec["bindings"][i], doc)
        schema = spec["bindings"][i]["collection"]["writeSchema"]
        combined[i, text] = (wire, fold(schema, combined[i, text][1], doc) if (i, text) in combined else doc)
    for (i, _), (wire, _) in combined.items():
        if not spec["bindings"][i].get("deltaUpdates"):
            p.send({"load": {"binding": i} | wire})
    patches, loaded = [p.expect("acknowledged").get("state")], {}
    p.send({"flush": {}})
    while (m := p.read(o.timeout)) and m[0] == "loaded":
        i, doc = m[1].get("binding", 0), m[1]["doc"]
        emit("loaded", m[1])
        if loaded.setdefault((i, keyed(o, spec["bindings"][i], doc)[0]), doc) is not doc:
            raise Violation(f"loaded twice: {compact(doc)}")
    if not m or m[0] != "flushed":
        raise Violation(f"{m[0]} came where flushed was due" if m else f"the connector ended: {p.ended()[1]}")
    patches.append(m[1].get("state"))
    for (i, text), (wire, doc) in combined.items():
        binding, old = spec["bindings"][i], loaded.get((i, text))
        doc = doc if old is None else fold(binding["collection"]["writeSchema"], old, doc)
        pointers = {x["field"]: x.get("ptr", "") for x in binding["collection"]["projections"]}
        selection, gone = binding["fieldSelection"], at_pointer(doc, "/_meta/op") == "d"
        values = form(o, "values", [at_pointer(doc, pointers[f]) for f in selection["values"]])
        document = {"doc": doc} if selection.get("document") else {}
        p.send({"store": {"binding": i, "exists": old is not None, "delete": gone and old is not None} | wire | values | document})
    p.send({"startCommit": {"runtimeCheckpoint": {"sources": {"peer": {"readThrough": str(done)}}}}})
    return patches + [p.expect("startedCommit").get("state")]


def say(o):
    """Requests, and controls, from standard input as they are; responses as they come."""
    p = Peer(o)
    obey(p)
    if not o.keep_open:
        p.control("close")
    while m := p.read(o.timeout):
        emit(*m)
    return p


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("verb", choices=["spec", "discover", "capture", "materialize", "say"])
    a.add_argument("--binary", required=True, help="the connector, or docker")
    a.add_argument("--argument", action="append", default=[], help="an argument of it; repeat")
    a.add_argument("--codec", choices=["proto", "json"], default="proto")
    a.add_argument("--kind", choices=["capture", "materialize"], help="of the connector, for spec and say", default="capture")
    a.add_argument("--config", help="file with the endpoint configuration, in JSON")
    a.add_argument("--bindings", help="materialize: file with [{name, key, schema, resource}]")
    a.add_argument("--only", action="append", help="capture: this table; repeat")
    a.add_argument("--task", default="peer/task")
    a.add_argument("--spec", help="file with a built spec: skip what comes before Open")
    a.add_argument("--last", help="file with the built spec before this one")
    a.add_argument("--state", default="{}", help="state to open with")
    a.add_argument("--position", type=int, default=0, help="materialize: transactions done, if the connector keeps no checkpoint")
    a.add_argument("--form", choices=["plain", "legacy", "indirect"], default="plain")
    a.add_argument("--packed", action="store_true", help="materialize: packed keys in the JSON codec, too")
    a.add_argument("--acks", choices=["every", "never", "close"], default="every", help="close: close the input after Open")
    a.add_argument("--limit", type=int, default=0, help="capture: end after this many documents")
    a.add_argument("--die-at", help="kill the connector there in its second transaction: send:NAME or read:NAME")
    a.add_argument("--keep-open", action="store_true", help="say: do not close the input at the end")
    a.add_argument("--timeout", type=float, default=30, help="seconds for an answer")
    a.add_argument("--log-level", default="info")
    a.add_argument("--verbose", type=int, nargs="?", const=2000, default=0, help="show the conversation on stderr, that many characters a message")
    o = a.parse_args()
    try:
        config = json.load(open(o.config)) if o.config else {}
        if o.verb in ("spec", "discover"):
            emit(o.verb, call(o, None) if o.verb == "spec" else discover(o, config))
            return 0
        p = say(o) if o.verb == "say" else globals()[o.verb](o, config)
        code, last = p.ended()
        emit("exit", {"code": code, "last": last})
        return 0
    except EOFError:
        emit("exit", {"code": -9, "last": "killed at " + o.die_at})
        return 0
    except Violation as e:
        emit("violation", str(e))
        return 3
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
