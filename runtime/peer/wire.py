"""Messages of the connector protocol and their two codecs, from a table of fields.

Everywhere else a message is a dict in its JSON form: lowerCamelCase names, 64-bit integers as text, bytes in base64, enums by name.
"""
import base64, json, re, struct

# One message a line: field:number:type. Types: s text, b bool, u uint32, i int32, l int64, x fixed32, q fixed64, j JSON, y bytes, D duration,
# @e enum, Name message; * repeated, % map with text keys. C… is capture, M… materialize. What only other senders use is left out.
FIELDS = """
CRequest spec:1:TypeConfig discover:2:Discover validate:3:CValidate apply:4:CApply open:5:COpen acknowledge:6:Ack
TypeConfig connector_type:1:@task config_json:2:j
Discover connector_type:1:@task config_json:2:j name:3:s created_at:4:s
CValidate name:1:s connector_type:2:@task config_json:3:j bindings:4:*CWant last_capture:5:CSpec last_version:6:s linked_collections:7:*Collection
CWant resource_config_json:1:j collection:2:Collection backfill:3:u collection_index:4:u
CApply capture:1:CSpec version:2:s last_capture:4:CSpec last_version:5:s state_json:6:j
COpen capture:1:CSpec version:2:s range:3:Range state_json:4:j sealed_config_json:5:j
Ack checkpoints:1:u
CResponse spec:1:Spec discovered:2:Discovered validated:3:CValidated applied:4:Applied opened:5:COpened captured:6:Captured \
 checkpoint:7:Stateful sourced_schema:8:Sourced backfill_begin:9:OfBinding backfill_complete:10:OfBinding
Spec protocol:1:u config_schema_json:2:j resource_config_schema_json:3:j documentation_url:4:s oauth2:5:OAuth2 resource_path_pointers:6:*s
OAuth2 provider:1:s auth_url_template:2:s access_token_url_template:3:s access_token_body:4:s
Discovered bindings:1:*Found
Found recommended_name:1:s resource_config_json:2:j document_schema_json:3:j key:4:*s disable:5:b resource_path:6:*s is_fallback_key:7:b
CValidated bindings:1:*Path
Path resource_path:1:*s
Applied action_description:1:s state:2:State
COpened explicit_acknowledgements:1:b
Captured binding:1:u doc_json:2:j
Sourced binding:1:u schema_json:2:j
Stateful state:1:State
OfBinding binding:1:u
MRequest spec:1:TypeConfigM validate:2:MValidate apply:3:MApply open:4:MOpen load:5:Load flush:6:Patches store:7:Store start_commit:8:StartCommit \
 acknowledge:9:Patches
TypeConfigM connector_type:1:@sink config_json:2:j
MValidate name:1:s connector_type:2:@sink config_json:3:j bindings:4:*MWant last_materialization:5:MSpec last_version:6:s \
 linked_collections:7:*Collection
MWant resource_config_json:1:j collection:2:Collection field_config_json_map:3:%j backfill:4:u group_by:5:*s collection_index:6:u
MApply materialization:1:MSpec version:2:s last_materialization:4:MSpec last_version:5:s state_json:6:j
MOpen materialization:1:MSpec version:2:s range:3:Range state_json:4:j sealed_config_json:5:j
Load binding:1:u key_json:2:j key_packed:3:y
Patches state_patches_json:1:j
Store binding:1:u key_json:2:j key_packed:3:y values_json:4:j values_packed:5:y doc_json:6:j exists:7:b delete:8:b
StartCommit runtime_checkpoint:1:Checkpoint state_patches_json:2:j
MResponse spec:1:Spec validated:2:MValidated applied:3:Applied opened:4:MOpened loaded:5:Captured flushed:6:Stateful started_commit:7:Stateful \
 acknowledged:8:Stateful
MValidated bindings:1:*Takes
Takes constraints:1:%Constraint resource_path:2:*s delta_updates:3:b ser_policy:4:Ser case_insensitive_fields:5:b projection_constraints:6:*OfField
OfField field:1:s constraint:2:Constraint
Constraint type:2:@constraint reason:3:s folded_field:4:s
MOpened runtime_checkpoint:1:Checkpoint disable_load_optimization:2:b
Ser str_truncate_after:1:u nested_obj_truncate_after:2:u array_truncate_after:3:u
Collection name:1:s key:3:*s uuid_ptr:4:s partition_fields:5:*s projections:6:*Projection ack_template_json:7:j write_schema_json:8:j \
 partition_template:9:Journal read_schema_json:11:j
Projection ptr:1:s field:2:s explicit:3:b is_partition_key:4:b is_primary_key:5:b inference:6:Inference
Inference types:1:*s string:3:Text title:4:s description:5:s default_json:6:j secret:7:b exists:8:@exists
Text content_type:3:s format:4:s max_length:6:u content_encoding:7:s
CSpec name:1:s connector_type:2:@task config_json:3:j bindings:4:*CBinding interval_seconds:5:u inactive_bindings:9:*CBinding created_at:11:s \
 linked_collections:12:*Collection
CBinding resource_config_json:1:j resource_path:2:*s collection:3:Collection backfill:4:u state_key:5:s collection_index:6:u
MSpec name:1:s connector_type:2:@sink config_json:3:j bindings:4:*MBinding inactive_bindings:9:*MBinding linked_collections:13:*Collection
MBinding resource_config_json:1:j resource_path:2:*s collection:3:Collection field_selection:4:Selection delta_updates:5:b \
 journal_read_suffix:8:s priority:9:i backfill:12:u state_key:13:s collection_index:15:u
Selection keys:1:*s values:2:*s document:3:s field_config_json_map:4:%j
Range key_begin:2:x key_end:3:x r_clock_begin:4:x r_clock_end:5:x
State updated_json:1:j merge_patch:2:b
Checkpoint sources:1:%Source ack_intents:2:%y
Source read_through:1:l producers:2:*Producer
Producer id:1:y state:2:ProducerState
ProducerState last_ack:1:q begin:2:l
Journal name:1:s replication:2:i labels:3:Labels fragment:4:Fragment flags:6:u max_append_rate:7:l
Fragment length:1:l compression_codec:2:@compression stores:3:*s refresh_interval:4:D retention:5:D flush_interval:6:D
Labels labels:1:*Label
Label name:1:s value:2:s prefix:3:b
Dur seconds:1:l nanos:2:i
"""
ENUMS = {"task": {"IMAGE": 7, "LOCAL": 8}, "sink": {"IMAGE": 8, "LOCAL": 9, "DEKAF": 10}, "exists": {"MUST": 1, "MAY": 2, "IMPLICIT": 3, "CANNOT": 4},
         "compression": {"NONE": 1, "GZIP": 2, "ZSTANDARD": 3, "SNAPPY": 4},
         "constraint": {"FIELD_REQUIRED": 1, "LOCATION_REQUIRED": 2, "LOCATION_RECOMMENDED": 3, "FIELD_OPTIONAL": 4, "FIELD_FORBIDDEN": 5,
                        "INCOMPATIBLE": 6, "UNSATISFIABLE": 6}}


class Violation(Exception):
    """The connector broke the protocol."""


def json_name(message, field):
    base = "document_schema" if message == "Sourced" else re.sub(r"_json(_map)?$", "", field)
    return re.sub(r"_(\w)", lambda m: m[1].upper(), base)


TABLE = {}  # message → [(proto name, JSON name, number, container, type)]
for row in FIELDS.replace("\\\n", "").strip().split("\n"):
    message, *fields = row.split()
    TABLE[message] = [(n, json_name(message, n), int(k), t[0] if t[0] in "*%" else "", t.lstrip("*%")) for n, k, t in (f.split(":") for f in fields)]


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def varint(n):
    n, out = n & (1 << 64) - 1, bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    return bytes(out + bytes([n]))


def encode_one(kind, value):
    """One value of the JSON form as (wire type, bytes)."""
    if kind in TABLE or kind == "D":
        body = encode("Dur", {"seconds": value.rstrip("s")}) if kind == "D" else encode(kind, value)
    elif kind in "sjy":
        body = {"s": str.encode, "j": lambda v: compact(v).encode(), "y": base64.b64decode}[kind](value)
    elif kind in "xq":
        return (5, struct.pack("<I", value)) if kind == "x" else (1, struct.pack("<Q", int(value)))
    else:
        return 0, varint(ENUMS[kind[1:]][value] if kind[0] == "@" else int(value))
    return 2, varint(len(body)) + body


def encode(message, value):
    """A message of the JSON form in protobuf. Zero scalars are left out; messages and JSON that are there are written."""
    out = b""
    for _, name, number, container, kind in TABLE[message]:
        v = value.get(name)
        if v is None or kind[0] in "suilb" and kind not in TABLE and not container and v in ("", 0, False):
            continue
        for item in v if container == "*" else v.items() if container == "%" else [v]:
            if container == "%":
                wire, body = encode_one(kind, item[1])
                body = b"\x0a" + encode_one("s", item[0])[1] + varint(2 << 3 | wire) + body
                out += varint(number << 3 | 2) + varint(len(body)) + body
            else:
                wire, body = encode_one(kind, item)
                out += varint(number << 3 | wire) + body
    return out


def scan(b):
    """The fields of a protobuf message, as (number, wire type, number or bytes)."""
    at = 0

    def take_varint():
        nonlocal at
        n = shift = 0
        while True:
            byte, at = b[at], at + 1
            n |= (byte & 127) << shift
            if byte < 128:
                return n
            shift += 7

    while at < len(b):
        tag = take_varint()
        wire = tag & 7
        if wire == 0:
            yield tag >> 3, wire, take_varint()
            continue
        size = {5: 4, 1: 8}.get(wire) or take_varint()
        if wire not in (1, 2, 5) or at + size > len(b):
            raise Violation(f"a message is no protobuf at byte {at}: {b[:80].hex(' ')}")
        yield tag >> 3, wire, b[at:at + size]
        at += size


def decode_one(kind, v):
    if kind in TABLE:
        return decode(kind, v)
    if kind in "sjy":
        return {"s": bytes.decode, "j": json.loads, "y": lambda v: base64.b64encode(v).decode()}[kind](v)
    if kind[0] == "@":
        return next((n for n, k in ENUMS[kind[1:]].items() if k == v), v)
    if kind in "xq":
        v = int.from_bytes(v, "little")
    elif kind in "il" and v >> 63:
        v -= 1 << 64
    return bool(v) if kind == "b" else str(v) if kind in "lq" else v


def decode(message, body):
    fields, out = {f[2]: f for f in TABLE[message]}, {}
    for number, _, v in scan(body):
        if number not in fields:
            raise Violation(f"{message} has an unknown field {number}")
        _, name, _, container, kind = fields[number]
        if container == "%":
            entry = {n: x for n, _, x in scan(v)}
            out.setdefault(name, {})[entry.get(1, b"").decode()] = decode_one(kind, entry.get(2, b""))
        elif container == "*":
            out.setdefault(name, []).append(decode_one(kind, v))
        else:
            out[name] = decode_one(kind, v)
    return out


def rename(message, value, legacy=False):
    """The JSON form with names checked, null as absent; or the other way, as old senders write it: snake_case names and null siblings."""
    out, known = {}, {}
    for proto, name, _, container, kind in TABLE[message]:
        known[proto] = known[name] = name
        v = value.get(name) if legacy or name in value else value.get(proto)
        if v is not None and kind in TABLE:
            each = lambda v, kind=kind: rename(kind, v, legacy)
            v = [each(x) for x in v] if container == "*" else {k: each(x) for k, x in v.items()} if container == "%" else each(v)
        if legacy or v is not None:
            out[proto if legacy else name] = v
    if unknown := set(value) - set(known):
        raise Violation(f"{message} has unknown names {sorted(unknown)}")
    return out


def merge(doc, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    doc = dict(doc) if isinstance(doc, dict) else {}
    for k, v in patch.items():
        doc.pop(k, None) if v is None else doc.__setitem__(k, merge(doc.get(k), v))
    return doc


def reduce_state(state, patch):
    if not patch:
        return state
    return merge(state if patch.get("mergePatch") else {}, patch["updated"])


def pack(values):
    """The FoundationDB tuple of JSON values."""
    out = b""
    for v in values:
        if v is None or isinstance(v, bool):
            out += b"\x00" if v is None else b"\x27" if v else b"\x26"
        elif isinstance(v, int):
            n = (abs(v).bit_length() + 7) // 8
            out += bytes([0x14 + n]) + v.to_bytes(n, "big") if v >= 0 else bytes([0x14 - n]) + (v + (1 << 8 * n) - 1).to_bytes(n, "big")
        elif isinstance(v, float):
            bits = struct.unpack(">Q", struct.pack(">d", v))[0]
            out += b"\x21" + (bits ^ ((1 << 64) - 1 if bits >> 63 else 1 << 63)).to_bytes(8, "big")
        else:
            text = isinstance(v, str)
            out += (b"\x02" if text else b"\x01") + (v if text else compact(v)).encode().replace(b"\0", b"\0\xff") + b"\0"
    return out


def at_pointer(doc, pointer):
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        doc = doc.get(part) if isinstance(doc, dict) else None
    return doc
