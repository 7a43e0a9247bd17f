// Package frame takes the streams between a runtime and a connector apart into messages, and puts messages into them.
//
//	stdin, stdout ──▶ Reader.Next ──▶ body ──▶ ParseCaptured, ParseStore …  in place, for the messages that carry rows
//	                                       └─▶ Codec.Unmarshal             for all others, copied
//	AppendCaptured, AppendStore … ─▶ Writer.Append ─┐
//	message ───────────────────────▶ Writer.Write ──┴─▶ buffer ──▶ Flush ──▶ stdout, stdin
//
// There are two codecs, of which both sides know beforehand which one is spoken.
//
//	Proto   02 00 00 00 0a 00     the body's length, four bytes, little-endian; then the body, protobuf
//	JSON    {"spec":{}}\n         one object a line
//
// JSON is the JSON mapping of protobuf, except that fields named …_json, …_json_map and …_json_vec, which hold JSON text, are embedded
// as they are. The text is checked to be JSON in either direction; where it holds a line break, it is compacted. Fields are written in
// the order of their numbers, maps in the order of their keys. Zero values are left out, but for those few that peers miss.
//
// What JSON is forgiven, since some peer writes it so:
//   - both names of a field: keyPacked and key_packed
//   - null, which is the same as nothing; within a map or list of raw values it is a value
//   - unknown names, unknown names of enum values, $internal, blank lines, white space anywhere, carriage returns
//   - enums by number; integers of any size as numbers and as strings, also written 1.0 and 1e3
//   - base64 in either alphabet, with and without padding
//   - one name several times: the last value counts
//
// What is not forgiven: text that is not JSON, a last line without its line break, numbers out of range, strings that are not
// UTF-8.
//
// Errors name the message by its number and its place in the stream, or the way to the field. They never show more than the
// first bytes of what may be a message, since messages carry passwords.
package frame
