package schema_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/sdk/schema"
	"github.com/sluicedata/sluice/sdk/testkit/golden"
	"github.com/sluicedata/sluice/sdk/usererr"
)

type login struct {
	User     string        `json:"user" title:"User" desc:"Who to log in as." default:"sluice"`
	Password schema.Secret `json:"password" title:"Password" desc:"The user's password." secret:"true"`
}

type advanced struct {
	Workers  int             `json:"workers" title:"Workers" desc:"How many work at once." default:"4"`
	Ratio    float64         `json:"ratio" title:"Ratio" desc:"A part of one." default:"0.5"`
	Timeout  schema.Duration `json:"timeout" title:"Timeout" desc:"How long to wait." default:"5m"`
	Limit    uint16          `json:"limit,omitempty" title:"Limit" desc:"None if absent."`
	Verbose  bool            `json:"verbose" title:"Verbose" desc:"Say more."`
	Patterns []string        `json:"patterns" title:"Patterns" desc:"Names to skip."`
}

type everything struct {
	Address string `json:"address" title:"Address" desc:"Host, or host:port." order:"7"`
	login
	Mode     string            `json:"mode" title:"Mode" desc:"How." default:"fast" enum:"fast,\"safe\""`
	Level    int               `json:"level" title:"Level" desc:"How much." default:"2" enum:"1,2,3"`
	Cert     *string           `json:"cert" title:"Certificate" desc:"In PEM." multiline:"true"`
	Since    time.Time         `json:"since,omitzero" title:"Since" desc:"Not before."`
	Labels   map[string]string `json:"labels" title:"Labels" desc:"Names and values." x-hidden-field:"true"`
	Raw      json.RawMessage   `json:"raw" title:"Raw" desc:"Anything at all."`
	Blob     []byte            `json:"blob,omitempty" title:"Blob" desc:"Bytes in base64."`
	Advanced advanced          `json:"advanced" title:"Advanced" desc:"For few." advanced:"true"`
	Hidden   string            `json:"-"`
	Name     string            `json:"name" title:"Name" desc:"Where to put it." x-collection-name:"true" x-note:"two words"`
}

func TestReflect(t *testing.T) {
	t.Parallel()
	schema.CheckConfig[login](t)
	schema.CheckConfig[advanced](t)
	got := schema.Reflect[everything]("Everything")
	golden.CompareJSON(t, "form.json", got)
	require.Equal(t, string(got), string(schema.Reflect[everything]("Everything")))
	golden.CompareJSON(t, "document.json", schema.Of[everything]())
	require.JSONEq(t, `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"array","items":{"type":["integer","null"]}}`,
		string(schema.Of[[1]*int]()))
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := schema.Parse[everything](json.RawMessage(`{
		"address": "db:5432", "password": "hunter2", "cert": "-----", "since": "2024-05-06T07:08:09Z", "level": 3, "blob": "AQI=",
		"labels": {"a": "b"}, "raw": [1], "advanced": {"timeout": "90s", "ratio": 1, "limit": null, "patterns": ["x"]},
		"name": "n", "sops": {"mac": "…"}
	}`), "the configuration")
	require.NoError(t, err)
	cert := "-----"
	require.Equal(t, everything{
		Address: "db:5432", login: login{User: "sluice", Password: schema.NewSecret("hunter2")}, Mode: "fast", Level: 3, Cert: &cert,
		Since: time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC), Labels: map[string]string{"a": "b"}, Raw: json.RawMessage("[1]"),
		Blob: []byte{1, 2}, Name: "n",
		Advanced: advanced{Workers: 4, Ratio: 1, Timeout: schema.Duration(90 * time.Second), Patterns: []string{"x"}},
	}, got)
	text, err := json.Marshal(got.Advanced.Timeout)
	require.NoError(t, err)
	require.Equal(t, `"1m30s"`, string(text))
}

// TestMistakes lists what can be wrong in a configuration, and what people are told.
func TestMistakes(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		``:                                     `The configuration is not valid JSON: it is empty.`,
		`{"a":`:                                `The configuration is not valid JSON: it ends too early.`,
		`{"a" 1}`:                              `The configuration is not valid JSON: invalid character '1' after object key, at byte 6.`,
		`{} {}`:                                `The configuration is not valid JSON: something follows at byte 3.`,
		`null`:                                 `The configuration must be an object, but it is null.`,
		`"text"`:                               `The configuration must be an object, but it is a text.`,
		`{"addrezz": "x"}`:                     `The field "addrezz" of the configuration is unknown. Did you mean "address"?`,
		`{"Address": "x"}`:                     `The field "Address" of the configuration is unknown. Did you mean "address"?`,
		`{"advanced": {"zzzzzzz": 1}}`:         `The field "advanced.zzzzzzz" of the configuration is unknown. The fields are workers, ratio, timeout, limit, verbose, patterns.`,
		`{"advanced": {"sops": 1}}`:            `The field "advanced.sops" of the configuration is unknown. The fields are workers`,
		`{"address": 7}`:                       `The field "address" of the configuration must be a text, but it is a number.`,
		`{"password": {"x": 1}}`:               `The field "password" of the configuration must be a text, but it is an object.`,
		`{"level": 1.5}`:                       `The field "level" of the configuration must be a whole number, but it is a number with a fraction, below zero or too large.`,
		`{"advanced": {"limit": 65536}}`:       `The field "advanced.limit" of the configuration must be a whole number, but it is a number with a fraction, below zero or too large.`,
		`{"advanced": {"limit": -1}}`:          `The field "advanced.limit" of the configuration must be a whole number,`,
		`{"advanced": {"verbose": "yes"}}`:     `The field "advanced.verbose" of the configuration must be true or false, but it is a text.`,
		`{"advanced": {"ratio": false}}`:       `The field "advanced.ratio" of the configuration must be a number, but it is true or false.`,
		`{"advanced": {"patterns": ["a", 2]}}`: `The field "advanced.patterns[1]" of the configuration must be a text, but it is a number.`,
		`{"advanced": {"patterns": "a"}}`:      `The field "advanced.patterns" of the configuration must be a list, but it is a text.`,
		`{"advanced": {"timeout": "5x"}}`:      `The field "advanced.timeout" of the configuration is wrong: "5x" is no length of time such as "30s" or "5m".`,
		`{"advanced": {"timeout": "-5s"}}`:     `"-5s" is no length of time`,
		`{"labels": {"a": 1}}`:                 `The field "labels.a" of the configuration must be a text, but it is a number.`,
		`{"level": 7}`:                         `The field "level" of the configuration is "7". It may be 1, 2 or 3.`,
		`{"since": 7}`:                         `The field "since" of the configuration must be a time such as "2024-12-31T23:59:59Z", but it is a number.`,
		`{"blob": "*"}`:                        `The configuration cannot be read: illegal base64 data at input byte 0.`,
	} {
		_, err := schema.Parse[everything](json.RawMessage(text), "the configuration")
		require.Error(t, err, text)
		message := usererr.Message(err)
		require.Contains(t, message, want, text)
	}
	_, err := schema.Parse[everything](json.RawMessage(`{"addrezz": 1, "level": "x", "advanced": {"workers": []}}`), "the configuration")
	require.Equal(t, `The configuration has 3 problems:
1. The field "addrezz" of the configuration is unknown. Did you mean "address"?
2. The field "advanced.workers" of the configuration must be a whole number, but it is a list.
3. The field "level" of the configuration must be a whole number, but it is a text.`, usererr.Message(err))
}

type complaints []string

func (*complaints) Helper() {}
func (c *complaints) Errorf(format string, args ...any) {
	*c = append(*c, fmt.Sprintf(format, args...))
}

func TestCheckConfig(t *testing.T) {
	t.Parallel()
	type inner struct {
		Snake string `json:"snake_case" title:"T" desc:"D."`
	}
	type bad struct {
		Untagged string
		NoStop   string  `json:"noStop" title:"T" desc:"no stop"`
		Key      int     `json:"key" title:"T" desc:"D." secret:"true" default:"x"`
		Shown    string  `json:"shown" title:"T" desc:"D." secret:"true"`
		On       bool    `json:"on" title:"T" desc:"D." default:"true"`
		Enum     string  `json:"enum" title:"T" desc:"D." default:"c" enum:"a,b"`
		Inner    []inner `json:"inner" title:"T" desc:"D."`
	}
	var got complaints
	schema.CheckConfig[bad](&got)
	require.Equal(t, complaints{
		"field Untagged: its name is not in lower camel case", "field Untagged: it has no title", "field Untagged: it has no desc",
		"field noStop: its desc does not end with a full stop",
		"field key: it is secret but not a text", "field key: it is secret and has a default", "field key: its default x is not a value it can have",
		"field shown: it is secret but a string, which shows itself; use schema.Secret",
		"field on: it is a boolean that does not default to false",
		"field enum: its default c is not a value it can have", "field enum: its default is not among its enum",
		"field inner[].snake_case: its name is not in lower camel case",
	}, got)
	got = nil
	schema.CheckConfig[int](&got)
	require.Equal(t, complaints{"a configuration must be a struct, not int"}, got)
}

func TestColumn(t *testing.T) {
	t.Parallel()
	for want, got := range map[string]json.RawMessage{
		`{}`:                 schema.Column{}.Schema(true),
		`{"type":"integer"}`: schema.Column{Types: []string{"integer"}}.Schema(false),
		`{"type":["string","null"],"format":"date-time","description":"timestamptz","maxLength":9}`: schema.Column{
			Types: []string{"string"}, Format: "date-time", Description: "timestamptz", MaxLength: 9,
		}.Schema(true),
		`{"type":"string","contentMediaType":"application/json"}`: schema.Column{Types: []string{"string"}, ContentMediaType: "application/json"}.Schema(false),
		`{"type":["number","string"],"contentEncoding":"base64"}`: schema.Column{Types: []string{"number", "string"}, ContentEncoding: "base64"}.Schema(false),
		`{"type":"string","format":"number","x-decimal":{"precision":18,"scale":2}}`: schema.Column{
			Types: []string{"string"}, Format: "number", Decimal: schema.DecimalOf(18, 2),
		}.Schema(false),
	} {
		require.Equal(t, want, string(got))
	}
}

func TestDecimalBounds(t *testing.T) {
	t.Parallel()
	of := schema.DecimalOf
	require.Equal(t, schema.Decimal{Precision: 18, Scale: 2}, of(18, 2))
	require.Equal(t, schema.Decimal{Precision: 5}, of(2, -3), "numeric(2,-3) of Postgres: 99000 is the largest")
	require.Equal(t, schema.Decimal{Precision: 5, Scale: 5}, of(3, 5), "numeric(3,5): 0.00999 is the largest")
	require.Equal(t, of(20, 4), of(18, 2).Union(of(10, 4)), "16 digits before the point, 4 behind it")
	require.Equal(t, of(18, 2), of(18, 2).Union(of(9, 1)))
	require.False(t, of(18, 2).Union(schema.Decimal{}).Bounded(), "with what has no bound there is none")
	for _, wrong := range []schema.Decimal{{}, {Precision: -1}, {Precision: 2, Scale: 3}, {Precision: 2, Scale: -1}, {Precision: 1 << 30}} {
		require.False(t, wrong.Bounded())
		require.False(t, of(18, 2).Union(wrong).Bounded())
	}
}
