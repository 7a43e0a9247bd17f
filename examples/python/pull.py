"""Captures all that a source has as JSON lines, and keeps its position:

    python3 pull.py source-postgres config.json state.json

It spawns the connector and speaks the protocol (docs/protocol.md) in Protobuf, with classes generated from the proto
files and no library of Sluice's. README.md says how to generate them.
"""
import json, os, signal, struct, subprocess, sys

from capture.capture_pb2 import Request, Response
from flow.task_pb2 import CaptureSpec

LOCAL, NAME = CaptureSpec.LOCAL, "acme/example"


class Connector:
    """A connector's process: a length of four bytes (little endian) and a message, both ways. Its log is on our stderr."""

    def __init__(self, program):
        env = dict(os.environ, FLOW_RUNTIME_CODEC="proto", LOG_FORMAT="json")
        # A session of its own, so that an interrupt on the terminal reaches us, and it through us.
        self.process = subprocess.Popen([program], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)

    def send(self, **kind):
        body = Request(**kind).SerializeToString()
        self.process.stdin.write(struct.pack("<I", len(body)) + body)
        self.process.stdin.flush()

    def receive(self):
        """The next response; None when the output has ended."""
        head = self.process.stdout.read(4)
        if len(head) < 4:
            return None
        size = struct.unpack("<I", head)[0]
        body = self.process.stdout.read(size)
        if len(body) < size:
            raise EOFError("the connector ended in the middle of a message")
        return Response.FromString(body)

    def end(self):
        self.process.stdin.close()
        code = self.process.wait()
        if code != 0:
            sys.exit(f"the connector ended with exit code {code}; its log says why")


def call(program, **request):
    """One request in a process of its own."""
    connector = Connector(program)
    connector.send(**request)
    response = connector.receive()
    connector.end()
    return response


def merge(state, patch):
    """RFC 7396: a null deletes, an object is merged, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(state) if isinstance(state, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def reduce(state, update):
    """The state after an update, which replaces it or is merged into it."""
    if not update.updated_json:
        return state
    updated = json.loads(update.updated_json)
    return merge(state, updated) if update.merge_patch else updated


def specify(program, config):
    """Discovers, validates, and makes the specification of a capture of everything."""
    discovered = call(program, discover=dict(connector_type=LOCAL, config_json=config, name=NAME)).discovered
    bindings = []
    for found in discovered.bindings:
        if found.disable or not found.key:
            continue
        keys = sorted(found.key)
        collection = dict(name="acme/" + found.recommended_name, key=found.key, write_schema_json=found.document_schema_json,
                          projections=[dict(ptr=ptr, field=ptr[1:], is_primary_key=True) for ptr in keys])
        bindings.append(dict(resource_config_json=found.resource_config_json, collection=collection))
    validate = dict(name=NAME, connector_type=LOCAL, config_json=config, bindings=bindings)
    validated = call(program, validate=validate).validated
    for binding, answer in zip(bindings, validated.bindings):
        binding.update(resource_path=answer.resource_path, state_key="%2F".join(answer.resource_path))
    return dict(name=NAME, connector_type=LOCAL, config_json=config, bindings=bindings, interval_seconds=60)


def main(program, config_file, state_file):
    with open(config_file, "rb") as f:
        config = f.read()
    state = {}
    if os.path.exists(state_file):
        with open(state_file) as f:
            state = json.load(f)
    spec = specify(program, config)
    while True:  # a connector may want to be asked again, with the state that it returned
        applied = call(program, apply=dict(capture=spec, version="v1", state_json=json.dumps(state).encode())).applied
        if not applied.state.updated_json:
            break
        state = reduce(state, applied.state)

    connector = Connector(program)
    signal.signal(signal.SIGINT, lambda *_: connector.process.terminate())  # it ends behind a checkpoint
    everything = dict(key_begin=0, key_end=0xFFFFFFFF, r_clock_begin=0, r_clock_end=0xFFFFFFFF)
    connector.send(open=dict(capture=spec, version="v1", range=everything, state_json=json.dumps(state).encode()))
    explicit = connector.receive().opened.explicit_acknowledgements
    while (response := connector.receive()) is not None:
        if response.HasField("captured"):
            sys.stdout.buffer.write(response.captured.doc_json + b"\n")
        elif response.HasField("checkpoint"):
            # All documents so far are kept before the state is, and the state before it is acknowledged.
            sys.stdout.buffer.flush()
            state = reduce(state, response.checkpoint.state)
            with open(state_file + ".new", "w") as f:
                json.dump(state, f)
            os.replace(state_file + ".new", state_file)
            if explicit and connector.process.poll() is None:
                try:
                    connector.send(acknowledge=dict(checkpoints=1))
                except BrokenPipeError:
                    pass  # it is ending, and will see the state when it is opened again
    connector.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
