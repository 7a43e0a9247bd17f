package protobuf

// everything has all that a schema can have: maps, oneofs, groups, closed enums, presence of every kind, well-known types,
// extensions and recursion.
const everything = `
syntax = "proto2";
package shop;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "inner.proto";

// An order, with
// everything.
message Order {
  optional int32 a = 1; optional int64 b = 2 [default = 7]; optional uint32 c = 3; optional uint64 d = 4;
  optional sint32 e = 5; optional sint64 f = 6; optional fixed32 g = 7; optional fixed64 h = 8;
  optional sfixed32 i = 9; optional sfixed64 j = 10; optional bool k = 11; optional float l = 12;
  optional double m = 13; optional string n = 14; optional bytes o = 15; optional Color p = 16;
  repeated int32 ra = 20 [packed = true]; repeated sint64 rb = 21; repeated Color rc = 22 [packed = true];
  repeated string rd = 23; repeated Order re = 24; repeated double rf = 25; repeated fixed32 rg = 26 [packed = true];
  map<string, int32> ma = 30; map<int64, Order> mb = 31; map<bool, Color> mc = 32; map<sfixed32, bytes> md = 33;
  oneof choice { string x = 40; Order y = 41; int32 z = 42; inner.Inner w = 43; }
  optional group Pair = 50 { optional int32 left = 1; repeated string right = 2; }
  // The inner one.
  optional inner.Inner inner = 60; repeated inner.Inner inners = 61;
  optional google.protobuf.Timestamp t = 70; optional google.protobuf.Duration u = 71;
  optional google.protobuf.Struct v = 72; optional google.protobuf.Any any = 73; optional google.protobuf.FieldMask mask = 74;
  optional google.protobuf.Int64Value wi = 75; optional google.protobuf.StringValue ws = 76; optional google.protobuf.BytesValue wb = 77;
  optional google.protobuf.DoubleValue wd = 78; optional google.protobuf.BoolValue wo = 79; optional google.protobuf.ListValue wl = 80;
  optional google.protobuf.Value wv = 81;
  extensions 100 to 200;
  message Nested { optional int32 x = 1; }
  optional Nested nested = 90;
  optional int32 far = 70000;
}
enum Color { RED = 0; GREEN = 1; BLUE = -5; }
extend Order { optional string extra = 100; repeated int32 numbers = 101; }
`

const inner = `
syntax = "proto3";
package inner;
message Inner {
  int32 a = 1; int64 b = 2; string s = 3; bytes y = 4; double d = 5; bool o = 6; Kind kind = 7; uint64 u = 8;
  optional int32 maybe = 9; repeated Kind kinds = 10; map<uint32, Kind> by = 11; Inner again = 12; float f = 13;
}
enum Kind { NONE = 0; SOME = 1; }
`

const edition = `
edition = "2023";
package next;
message Next {
  int32 explicit = 1;
  int32 implicit = 2 [features.field_presence = IMPLICIT];
  int32 needed = 3 [features.field_presence = LEGACY_REQUIRED];
  repeated int32 expanded = 4 [features.repeated_field_encoding = EXPANDED];
  Next delimited = 5 [features.message_encoding = DELIMITED];
  Closed closed = 6;
  enum Closed { option features.enum_type = CLOSED; A = 0; B = 1; }
}
`
