"""One connector process and the conversation with it."""
import json, os, queue, signal, struct, subprocess, sys, threading, time

from wire import Violation, compact, decode, encode, rename


def emit(name, body):
    print(compact([name, body]), flush=True)


class Peer:
    """One connector process, and the conversation with it."""

    def __init__(self, o):
        self.o, self.side, self.last, self.txn, self.killed = o, "M" if o.verb == "materialize" or o.kind == "materialize" else "C", "", 0, False
        self.messages = queue.Queue()
        env = dict(os.environ, FLOW_RUNTIME_CODEC=o.codec, LOG_FORMAT="json", LOG_LEVEL=o.log_level)
        env.pop("SLUICE_CODEC", None)
        self.p = subprocess.Popen([o.binary] + o.argument, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.logs = threading.Thread(target=self.read_logs, daemon=True)
        self.reader.start()
        self.logs.start()

    def note(self, arrow, text):
        if self.o.verbose:
            print(f"{time.strftime('%H:%M:%S')} {self.p.pid} {arrow} {text[:self.o.verbose]}", file=sys.stderr, flush=True)

    def read_logs(self):
        for line in self.p.stderr:
            line = line.decode(errors="replace").strip()
            self.note("log", line)
            try:
                log = json.loads(line)
                self.last = log.get("message") or log.get("msg") or line
            except (ValueError, AttributeError):
                self.last = line or self.last

    def listen(self):
        try:
            while frame := self.frame():
                self.messages.put(frame)
            self.messages.put(None)
        except Exception as e:  # whatever it is, it belongs to the one who reads the messages
            self.messages.put(e if isinstance(e, Violation) else Violation(f"an answer cannot be read: {e!r}"))

    def frame(self):
        f = self.p.stdout
        if self.o.codec == "json":
            line = f.readline()
            if line and not line.endswith(b"\n") and not self.killed:
                raise Violation(f"the last line is cut off: {line[:80]!r}")
            message = rename(self.side + "Response", json.loads(line)) if line.endswith(b"\n") else None
        else:
            head = f.read(4)
            size = int.from_bytes(head, "little")
            if size >= 1 << 26:
                raise Violation(f"a message of {size} bytes; perhaps text on standard output: {head!r}")
            body = f.read(size) if len(head) == 4 else b""
            if (0 < len(head) < 4 or len(body) < size) and not self.killed:
                raise Violation("the last message is cut off")
            message = decode(self.side + "Response", body) if len(head) == 4 and len(body) == size else None
        if message is not None and len(message) != 1:
            raise Violation(f"a response holds {sorted(message)}; exactly one is wanted")
        return message

    def send(self, request):
        name = next(iter(request))
        self.note("→", compact(request))
        kind = self.side + "Request"
        if self.o.codec == "json":
            value = rename(kind, request, True) if self.o.form == "legacy" else request
            self.raw(compact(value).encode() + b"\n")
        else:
            body = encode(kind, request) + (b"\xe8\x07\x01" if self.o.form == "legacy" else b"")  # field 125: of no version that anybody knows
            self.raw(struct.pack("<I", len(body)) + body)
        self.step("send:" + name)

    def raw(self, data):
        try:
            self.p.stdin.write(data)
            self.p.stdin.flush()
        except (OSError, ValueError):
            pass  # a connector that left says why by its exit

    def read(self, wait=None):
        """The next response as (name, body), or None at the end of the stream."""
        try:
            m = self.messages.get(timeout=wait)
        except queue.Empty:
            raise Violation(f"no answer within {wait} s") from None
        if not m or isinstance(m, Violation):
            self.messages.put(m)  # the end stays the end
        if isinstance(m, Violation):
            raise m
        self.note("←", compact(m) if m else "end")
        if m:
            self.step("read:" + next(iter(m)))
        return m and next(iter(m.items()))

    def expect(self, name):
        m = self.read(self.o.timeout)
        if m is None:
            raise Violation(f"the connector ended where {name} was due: {self.ended()[1]}")
        if m[0] != name:
            raise Violation(f"{m[0]} came where {name} was due")
        return m[1]

    def step(self, name):
        """Kills the connector at the step it was asked to die at, in the second transaction."""
        if name == self.o.die_at and (self.txn > 1 or name.lower() in ("send:open", "read:opened")):
            self.control("kill")
            raise EOFError

    def control(self, line):
        """What a person, or a test, may do to the connector beside the protocol."""
        word, _, rest = line.strip().partition(" ")
        self.note("!", line.strip())
        if word == "ack":
            self.send({"acknowledge": {"checkpoints": int(rest or 1)}})
        elif word == "close":
            try:
                self.p.stdin.close()
            except OSError:
                pass  # as in raw
        elif word == "wait":
            while (m := self.read(self.o.timeout)) and m[0] != rest:
                emit(*m)
        elif word in ("kill", "term"):
            self.killed = word == "kill"
            self.p.send_signal(signal.SIGKILL if self.killed else signal.SIGTERM)
        elif word == "hex":
            self.raw(bytes.fromhex(rest))
        elif word:
            self.send(json.loads(line))

    def ended(self):
        try:
            code = self.p.wait(self.o.timeout)
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise Violation(f"the connector did not end within {self.o.timeout} s") from None
        self.logs.join(5)
        return code, self.last

    def spec(self):
        self.send({"spec": {"connectorType": "IMAGE", "config": {}}})
        spec = self.expect("spec")
        if spec.get("protocol") != 3032023:
            raise Violation(f"protocol {spec.get('protocol')} is not 3032023")
        return spec
