package capturepb_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	flowpb "github.com/sluicedata/sluice/protocol/flow"
	"github.com/sluicedata/sluice/protocol/frame"
)

// request and response decode a message from JSON, which is how people see them.
func request(t *testing.T, text string) *capturepb.Request {
	t.Helper()
	m := &capturepb.Request{}
	require.NoError(t, frame.JSON.Unmarshal([]byte(text), m))
	return m
}

func response(t *testing.T, text string) *capturepb.Response {
	t.Helper()
	m := &capturepb.Response{}
	require.NoError(t, frame.JSON.Unmarshal([]byte(text), m))
	return m
}

const (
	orders  = `{"name":"acme/orders","key":["/id"],"writeSchema":true}`
	binding = `{"resourceConfig":{},"resourcePath":["orders"],"stateKey":"orders","collection":` + orders + `}`
	spec    = `{"name":"acme/source","config":{},"bindings":[` + binding + `]}`
)

func TestRequests(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                    `the request is empty, or of a kind that this version does not know`,
		`{"derive":{}}`:         `the request is empty, or of a kind that this version does not know`,
		`{"spec":{},"open":{}}`: `the request carries several messages at once: spec, open`,

		`{"spec":{}}`: ``,

		`{"discover":{"config":{}}}`: ``,
		`{"discover":{}}`:            `discover.config: missing`,

		`{"validate":{"name":"a","config":{},"bindings":[{"resourceConfig":{},"collection":` + orders + `}]}}`: ``,
		`{"validate":{"config":{}}}`: `validate.name: missing`,
		`{"validate":{"name":"a"}}`:  `validate.config: missing`,
		`{"validate":{"name":"a","config":{},"bindings":[{"resourceConfig":{}}]}}`:                                                                  `validate.bindings[0].collection: missing`,
		`{"validate":{"name":"a","config":{},"bindings":[{}]}}`:                                                                                     `validate.bindings[0].resourceConfig: missing`,
		`{"validate":{"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{}}]}}`:                             ``,
		`{"validate":{"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"collectionIndex":1}]}}`:         `validate.bindings[0].collectionIndex: is 1, but there are 1 linked collections`,
		`{"validate":{"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"collection":` + orders + `}]}}`: `validate.bindings[0].collection: is given inline although there are linked collections`,
		`{"validate":{"name":"a","config":{},"linkedCollections":[{}]}}`:                                                                            `validate.linkedCollections[0].name: missing`,
		`{"validate":{"name":"a","config":{},"lastCapture":{"config":{"image":"x"},"bindings":[{"resourcePath":[]}]}}}`:                             ``,
		`{"apply":{"capture":` + spec + `,"lastCapture":{},"state":{}}}`:                                                                            ``,
		`{"apply":{}}`: `apply.capture: missing`,
		`{"apply":{"capture":{"name":"a","config":{},"bindings":[{"resourceConfig":{},"resourcePath":["a"],"stateKey":"a","collection":{"name":"a"}}]}}}`: `apply.capture.bindings[0].collection.key: missing`,

		`{"open":{"capture":` + spec + `}}`:                                                          ``,
		`{"open":{"capture":` + spec + `,"version":"1","range":{},"state":{}}}`:                      ``,
		`{"open":{"capture":` + spec + `,"range":{"keyBegin":7}}}`:                                   `open.range: keyBegin 00000007 is greater than keyEnd 00000000`,
		`{"open":{"capture":{"name":"a"}}}`:                                                          `open.capture.config: missing`,
		`{"open":{"capture":{"name":"a","config":{},"bindings":[` + binding + `,` + binding + `]}}}`: `open.capture.bindings[1]: "orders" is there already in bindings[0]`,

		`{"acknowledge":{"checkpoints":1}}`: ``,
		`{"acknowledge":{}}`:                `acknowledge.checkpoints: has to be at least 1`,
	} {
		err := request(t, text).Check()
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want)
	}
	m := request(t, `{"open":{"capture":`+spec+`}}`)
	m.Open.StateJson = []byte("x")
	require.EqualError(t, m.Check(), "open.state: invalid JSON at byte 0: expected a value, found 'x'")
	m = request(t, `{"apply":{"capture":`+spec+`}}`)
	m.Apply.StateJson = []byte("x")
	require.EqualError(t, m.Check(), "apply.state: invalid JSON at byte 0: expected a value, found 'x'")
}

func TestResponses(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                            `the response is empty, or of a kind that this version does not know`,
		`{"opened":{},"checkpoint":{}}`: `the response carries several messages at once: opened, checkpoint`,

		`{"spec":{"protocol":3032023,"configSchema":{},"resourceConfigSchema":{},"resourcePathPointers":["/a"]}}`: ``,

		`{"spec":{}}`:                   `spec.protocol: is 0, but has to be 3032023`,
		`{"spec":{"protocol":3032023}}`: `spec.configSchema: missing`,

		`{"spec":{"protocol":3032023,"configSchema":true}}`:                                                           `spec.resourceConfigSchema: missing`,
		`{"spec":{"protocol":3032023,"configSchema":{},"resourceConfigSchema":{},"resourcePathPointers":["/a","b"]}}`: `spec.resourcePathPointers[1]: "b" is not a JSON pointer: it has to begin with a slash`,

		`{"discovered":{"bindings":[{"recommendedName":"a","resourceConfig":{},"documentSchema":{}}]}}`: ``,
		`{"discovered":{"bindings":[{}]}}`:                                                                           `discovered.bindings[0].recommendedName: missing`,
		`{"discovered":{"bindings":[{"recommendedName":"a"}]}}`:                                                      `discovered.bindings[0].resourceConfig: missing`,
		`{"discovered":{"bindings":[{"recommendedName":"a","resourceConfig":{}}]}}`:                                  `discovered.bindings[0].documentSchema: missing`,
		`{"discovered":{"bindings":[{"recommendedName":"a","resourceConfig":{},"documentSchema":{},"key":["id"]}]}}`: `discovered.bindings[0].key[0]: "id" is not a JSON pointer: it has to begin with a slash`,

		`{"validated":{"bindings":[{"resourcePath":["a","b"]}]}}`: ``,
		`{"validated":{"bindings":[{"resourcePath":["a"]},{}]}}`:  `validated.bindings[1].resourcePath: missing`,

		`{"applied":{}}`:           ``,
		`{"applied":{"state":{}}}`: `applied.state.updated: missing`,
		`{"opened":{}}`:            ``,

		`{"captured":{"doc":{}}}`:                 ``,
		`{"captured":{"binding":1}}`:              `captured.doc: missing`,
		`{"checkpoint":{}}`:                       ``,
		`{"checkpoint":{"state":{}}}`:             `checkpoint.state.updated: missing`,
		`{"sourcedSchema":{"documentSchema":{}}}`: ``,
		`{"sourcedSchema":{}}`:                    `sourcedSchema.documentSchema: missing`,
		`{"backfillBegin":{}}`:                    ``,
		`{"backfillComplete":{"binding":1}}`:      ``,
	} {
		err := response(t, text).Check()
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want)
	}
}

func TestInlineCollections(t *testing.T) {
	t.Parallel()
	indirect := `"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"resourcePath":["a"],"stateKey":"a"}]`
	for _, text := range []string{
		`{"validate":{` + indirect + `,"lastCapture":{` + indirect + `}}}`,
		`{"apply":{"capture":{` + indirect + `},"lastCapture":{` + indirect + `}}}`,
		`{"open":{"capture":{` + indirect + `}}}`,
	} {
		m := request(t, text)
		require.NoError(t, m.Check())
		require.NoError(t, m.InlineCollections())
		require.NoError(t, m.Check())
		for _, b := range m.GetValidate().GetBindings() {
			require.Equal(t, "acme/orders", b.GetCollection().GetName())
		}
		for _, x := range []*flowpb.CaptureSpec{
			m.GetValidate().GetLastCapture(), m.GetApply().GetCapture(), m.GetApply().GetLastCapture(), m.GetOpen().GetCapture(),
		} {
			for _, b := range x.GetBindings() {
				require.Equal(t, "acme/orders", b.GetCollection().GetName())
			}
		}
		require.Empty(t, m.GetValidate().GetLinkedCollections())
	}
	mixed := `"name":"a","config":{},"linkedCollections":[` + orders + `],"bindings":[{"resourceConfig":{},"collection":` + orders + `}]`
	for text, want := range map[string]string{
		`{"validate":{` + mixed + `}}`:                 `validate.bindings[0]`,
		`{"validate":{"lastCapture":{` + mixed + `}}}`: `validate.lastCapture.bindings[0]`,
		`{"apply":{"capture":{` + mixed + `}}}`:        `apply.capture.bindings[0]`,
		`{"apply":{"lastCapture":{` + mixed + `}}}`:    `apply.lastCapture.bindings[0]`,
		`{"open":{"capture":{` + mixed + `}}}`:         `open.capture.bindings[0]`,
	} {
		require.EqualError(t, request(t, text).InlineCollections(), want+`.collection: is given inline although there are linked collections`)
	}
	require.NoError(t, request(t, `{"spec":{}}`).InlineCollections())
}
