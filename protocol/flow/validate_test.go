package flowpb_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	flowpb "github.com/sluicedata/sluice/protocol/flow"
)

// collection is the least that every peer accepts.
func collection() *flowpb.CollectionSpec {
	return &flowpb.CollectionSpec{
		Name: "acme/orders", Key: []string{"/id"}, WriteSchemaJson: []byte(`true`),
		Projections: []*flowpb.Projection{{Field: "flow_document"}, {Field: "id", Ptr: "/id", IsPrimaryKey: true}},
		PartitionTemplate: &flowpb.JournalSpec{
			Name: "acme/orders/0000000000000000", Replication: 1,
			Fragment: &flowpb.JournalSpec_Fragment{
				Length: 1 << 24, CompressionCodec: flowpb.CompressionCodec_GZIP, RefreshInterval: durationpb.New(5 * time.Minute),
			},
		},
	}
}

func capture() *flowpb.CaptureSpec {
	return &flowpb.CaptureSpec{
		Name: "acme/source", ConnectorType: flowpb.CaptureSpec_IMAGE, ConfigJson: []byte(`{}`), IntervalSeconds: 300,
		ShardTemplate: &flowpb.ShardSpec{
			Id: "capture/acme/source", MaxTxnDuration: durationpb.New(time.Second),
			RecoveryLogPrefix: "recovery", HintPrefix: "/hints",
			Labels: &flowpb.LabelSet{Labels: []*flowpb.Label{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}},
		},
		RecoveryLogTemplate: collection().GetPartitionTemplate(),
		Bindings: []*flowpb.CaptureSpec_Binding{
			{ResourceConfigJson: []byte(`{}`), ResourcePath: []string{"public", "orders"}, StateKey: "orders", Collection: collection()},
			{ResourceConfigJson: []byte(`{}`), ResourcePath: []string{"public", "lines"}, StateKey: "lines", Collection: collection()},
		},
	}
}

func materialization() *flowpb.MaterializationSpec {
	return &flowpb.MaterializationSpec{
		Name: "acme/sink", ConnectorType: flowpb.MaterializationSpec_LOCAL, ConfigJson: []byte(`{}`),
		Bindings: []*flowpb.MaterializationSpec_Binding{{
			ResourceConfigJson: []byte(`{}`), ResourcePath: []string{"orders"}, StateKey: "orders", Collection: collection(),
			FieldSelection: &flowpb.FieldSelection{Keys: []string{"id"}, Document: "flow_document"},
		}},
	}
}

func TestValidCaptures(t *testing.T) {
	t.Parallel()
	require.NoError(t, capture().Validate())
	require.NoError(t, capture().ValidateStrict())
	require.NoError(t, materialization().Validate())
	require.NoError(t, materialization().ValidateStrict())
	bare := &flowpb.CaptureSpec{Name: "a", ConfigJson: []byte(`{}`)}
	require.NoError(t, bare.Validate(), "what we rely on is little")
}

func TestInvalidCaptures(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*flowpb.CaptureSpec){
		`name: missing`:   func(x *flowpb.CaptureSpec) { x.Name = "" },
		`config: missing`: func(x *flowpb.CaptureSpec) { x.ConfigJson = nil },
		`config: invalid JSON at byte 1: expected a key in quotes, found the end of the text`:     func(x *flowpb.CaptureSpec) { x.ConfigJson = []byte(`{`) },
		`bindings[1].resourceConfig: missing`:                                                     func(x *flowpb.CaptureSpec) { x.Bindings[1].ResourceConfigJson = nil },
		`bindings[1].resourcePath: missing`:                                                       func(x *flowpb.CaptureSpec) { x.Bindings[1].ResourcePath = nil },
		`bindings[0].resourcePath[1]: empty`:                                                      func(x *flowpb.CaptureSpec) { x.Bindings[0].ResourcePath[1] = "" },
		`bindings[0].stateKey: missing`:                                                           func(x *flowpb.CaptureSpec) { x.Bindings[0].StateKey = "" },
		`bindings[1]: "orders" is there already in bindings[0]`:                                   func(x *flowpb.CaptureSpec) { x.Bindings[1].StateKey = "orders" },
		`bindings[1].collection: missing`:                                                         func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection = nil },
		`bindings[1].collection.name: missing`:                                                    func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Name = "" },
		`bindings[1].collection.key: missing`:                                                     func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Key = nil },
		`bindings[1].collection.key[0]: "id" is not a JSON pointer: it has to begin with a slash`: func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Key[0] = "id" },
		`bindings[1].collection.projections[0].field: missing`:                                    func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Projections[0].Field = "" },
		`bindings[1].collection.writeSchema: missing`:                                             func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.WriteSchemaJson = nil },
		`bindings[1].collection.readSchema: invalid JSON at byte 0: expected a value, found 'x'`:  func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.ReadSchemaJson = []byte("x") },
		`bindings[0].collectionIndex: there are no linked collections`:                            func(x *flowpb.CaptureSpec) { x.Bindings[0].CollectionIndex = 1 },
		`bindings[0].collection: is given inline although there are linked collections`:           func(x *flowpb.CaptureSpec) { x.LinkedCollections = []*flowpb.CollectionSpec{collection()} },
		`linkedCollections[0].name: missing`:                                                      func(x *flowpb.CaptureSpec) { x.LinkedCollections = []*flowpb.CollectionSpec{{}} },
	} {
		x := capture()
		spoil(x)
		require.EqualError(t, x.Validate(), want)
		require.EqualError(t, x.ValidateStrict(), want)
	}
	require.EqualError(t, (*flowpb.CaptureSpec)(nil).Validate(), "missing")
	require.EqualError(t, (*flowpb.MaterializationSpec)(nil).Validate(), "missing")
}

func TestCapturesThatPeersRefuse(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*flowpb.CaptureSpec){
		`name: "acme orders" holds ' ': letters, digits and -_+/. are allowed`: func(x *flowpb.CaptureSpec) { x.Name = "acme orders" },
		`connectorType: missing`:                                                             func(x *flowpb.CaptureSpec) { x.ConnectorType = 0 },
		`intervalSeconds: missing`:                                                           func(x *flowpb.CaptureSpec) { x.IntervalSeconds = 0 },
		`shardTemplate.id: has 3 characters, 4 to 512 are allowed`:                           func(x *flowpb.CaptureSpec) { x.ShardTemplate.Id = "abc" },
		`shardTemplate.maxTxnDuration: missing`:                                              func(x *flowpb.CaptureSpec) { x.ShardTemplate.MaxTxnDuration = nil },
		`shardTemplate.hintPrefix: and recoveryLogPrefix: both or neither`:                   func(x *flowpb.CaptureSpec) { x.ShardTemplate.HintPrefix = "" },
		`shardTemplate.hintPrefix: "/a/" is not an absolute clean path`:                      func(x *flowpb.CaptureSpec) { x.ShardTemplate.HintPrefix = "/a/" },
		`shardTemplate.labels.labels[0]: a label may not be named "id"`:                      func(x *flowpb.CaptureSpec) { x.ShardTemplate.Labels.Labels[0].Name = "id" },
		`shardTemplate.labels.labels: is not in ascending order`:                             func(x *flowpb.CaptureSpec) { x.ShardTemplate.Labels.Labels[0].Value = "2" },
		`recoveryLogTemplate.replication: is 6, has to be 1 to 5`:                            func(x *flowpb.CaptureSpec) { x.RecoveryLogTemplate.Replication = 6 },
		`bindings[1].collection.name: has 513 characters, 1 to 512 are allowed`:              func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Name = string(make([]byte, 513)) },
		`bindings[1].collection.projections[1]: "id" is not above "id"`:                      func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Projections[0].Field = "id" },
		`bindings[1].collection.key[0]: "/id" has no projection that is marked isPrimaryKey`: func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.Projections[1].IsPrimaryKey = false },
		`bindings[1].collection.partitionFields[0]: "x" is not a projection`:                 func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionFields = []string{"x"} },
		`bindings[1].collection.partitionFields: is not in ascending order`: func(x *flowpb.CaptureSpec) {
			x.Bindings[1].Collection.PartitionFields = []string{"id", "flow_document"}
		},
		`bindings[1].collection.partitionTemplate: missing`:                                  func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate = nil },
		`bindings[1].collection.partitionTemplate.name: missing`:                             func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate.Name = "" },
		`bindings[1].collection.partitionTemplate.name: "/a/b" is not a relative clean path`: func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate.Name = "/a/b" },
		`bindings[1].collection.partitionTemplate.flags: is 3, has to be 0, 1, 2 or 4`:       func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate.Flags = 3 },
		`bindings[1].collection.partitionTemplate.maxAppendRate: is negative`:                func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate.MaxAppendRate = -1 },
		`bindings[1].collection.partitionTemplate.labels.labels[0]: a label may not be named "name"`: func(x *flowpb.CaptureSpec) {
			x.Bindings[1].Collection.PartitionTemplate.Labels = &flowpb.LabelSet{Labels: []*flowpb.Label{{Name: "name"}}}
		},
		`bindings[1].collection.partitionTemplate.fragment.length: is 0, has to be 1024 to 17179869184`: func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection.PartitionTemplate.Fragment = nil },
		`bindings[1].collection.partitionTemplate.fragment.compressionCodec: missing`: func(x *flowpb.CaptureSpec) {
			x.Bindings[1].Collection.PartitionTemplate.Fragment.CompressionCodec = 0
		},
		`bindings[1].collection.partitionTemplate.fragment.refreshInterval: is 25h0m0s, has to be 1s to 24h0m0s`: func(x *flowpb.CaptureSpec) {
			x.Bindings[1].Collection.PartitionTemplate.Fragment.RefreshInterval = durationpb.New(25 * time.Hour)
		},
		`bindings[1].collection.partitionTemplate.fragment.flushInterval: is 1s, has to be 1m0s or more`: func(x *flowpb.CaptureSpec) {
			x.Bindings[1].Collection.PartitionTemplate.Fragment.FlushInterval = durationpb.New(time.Second)
		},
	} {
		x := capture()
		spoil(x)
		require.NoError(t, x.Validate(), want)
		require.EqualError(t, x.ValidateStrict(), want)
	}
}

func TestInvalidMaterializations(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*flowpb.MaterializationSpec){
		`name: missing`:                            func(x *flowpb.MaterializationSpec) { x.Name = "" },
		`bindings[0].resourcePath: missing`:        func(x *flowpb.MaterializationSpec) { x.Bindings[0].ResourcePath = nil },
		`bindings[0].collection: missing`:          func(x *flowpb.MaterializationSpec) { x.Bindings[0].Collection = nil },
		`bindings[0].fieldSelection: missing`:      func(x *flowpb.MaterializationSpec) { x.Bindings[0].FieldSelection = nil },
		`bindings[0].fieldSelection.keys: missing`: func(x *flowpb.MaterializationSpec) { x.Bindings[0].FieldSelection.Keys = nil },
		`bindings[0].fieldSelection.keys[0]: "x" is not a projection of the collection "acme/orders"`:   func(x *flowpb.MaterializationSpec) { x.Bindings[0].FieldSelection.Keys[0] = "x" },
		`bindings[0].fieldSelection.values[1]: "x" is not a projection of the collection "acme/orders"`: func(x *flowpb.MaterializationSpec) { x.Bindings[0].FieldSelection.Values = []string{"id", "x"} },
		`bindings[0].fieldSelection.document: "x" is not a projection of the collection "acme/orders"`:  func(x *flowpb.MaterializationSpec) { x.Bindings[0].FieldSelection.Document = "x" },
		`bindings[1]: "orders" is there already in bindings[0]`: func(x *flowpb.MaterializationSpec) {
			x.Bindings = append(x.Bindings, x.Bindings[0])
		},
	} {
		x := materialization()
		spoil(x)
		require.EqualError(t, x.Validate(), want)
		require.EqualError(t, x.ValidateStrict(), want)
	}
	x := materialization()
	x.Bindings[0].FieldSelection.Values = []string{"id", "flow_document"}
	require.NoError(t, x.Validate())
	require.EqualError(t, x.ValidateStrict(), "bindings[0].fieldSelection.values: is not in ascending order")
	x = materialization()
	x.ConnectorType = 0
	require.EqualError(t, x.ValidateStrict(), "connectorType: missing")
	x = materialization()
	x.Bindings[0].Collection.PartitionTemplate = nil
	require.EqualError(t, x.ValidateStrict(), "bindings[0].collection.partitionTemplate: missing")
}

func TestRanges(t *testing.T) {
	t.Parallel()
	require.NoError(t, (*flowpb.RangeSpec)(nil).Validate())
	require.NoError(t, flowpb.FullRange().Validate())
	require.EqualError(t, (&flowpb.RangeSpec{KeyBegin: 2, KeyEnd: 1}).Validate(), "keyBegin 00000002 is greater than keyEnd 00000001")
	require.EqualError(t, (&flowpb.RangeSpec{RClockBegin: 2, RClockEnd: 1}).Validate(), "rClockBegin 00000002 is greater than rClockEnd 00000001")
	for _, c := range []struct {
		in         *flowpb.RangeSpec
		begin, end uint32
	}{
		{nil, 0, 0xffffffff},
		{&flowpb.RangeSpec{}, 0, 0xffffffff},
		{flowpb.FullRange(), 0, 0xffffffff},
		{&flowpb.RangeSpec{KeyEnd: 0x7fffffff, RClockEnd: 0xffffffff}, 0, 0x7fffffff},
		{&flowpb.RangeSpec{RClockEnd: 0xffffffff}, 0, 0},
		{&flowpb.RangeSpec{KeyBegin: 5, KeyEnd: 6}, 5, 6},
	} {
		begin, end := c.in.Keys()
		require.Equal(t, []uint32{c.begin, c.end}, []uint32{begin, end}, c.in)
	}
}

func indirect() *flowpb.CaptureSpec {
	x := capture()
	other := collection()
	other.Name = "acme/lines"
	x.LinkedCollections = []*flowpb.CollectionSpec{collection(), other}
	x.Bindings[0].Collection, x.Bindings[1].Collection = nil, nil
	x.Bindings[1].CollectionIndex = 1
	x.InactiveBindings = []*flowpb.CaptureSpec_Binding{{CollectionIndex: 1}}
	return x
}

func TestInlineCollections(t *testing.T) {
	t.Parallel()
	x := indirect()
	require.NoError(t, x.Validate())
	require.NoError(t, x.InlineCollections())
	require.NoError(t, x.Validate())
	require.NoError(t, x.InlineCollections(), "once more")
	want := capture()
	want.Bindings[1].Collection.Name = "acme/lines"
	want.InactiveBindings = []*flowpb.CaptureSpec_Binding{{Collection: want.GetBindings()[1].GetCollection()}}
	require.True(t, proto.Equal(want, x))
	require.NoError(t, (*flowpb.CaptureSpec)(nil).InlineCollections())

	m := materialization()
	m.LinkedCollections = []*flowpb.CollectionSpec{collection()}
	m.Bindings[0].Collection = nil
	m.InactiveBindings = []*flowpb.MaterializationSpec_Binding{{}}
	require.NoError(t, m.Validate())
	require.NoError(t, m.InlineCollections())
	require.NoError(t, m.Validate())
	require.Equal(t, "acme/orders", m.GetInactiveBindings()[0].GetCollection().GetName())
	require.Empty(t, m.GetLinkedCollections())
	require.NoError(t, (*flowpb.MaterializationSpec)(nil).InlineCollections())
}

func TestInlineCollectionsRefusesMixedForms(t *testing.T) {
	t.Parallel()
	for want, spoil := range map[string]func(*flowpb.CaptureSpec){
		`bindings[1].collection: is given inline although there are linked collections`:         func(x *flowpb.CaptureSpec) { x.Bindings[1].Collection = collection() },
		`inactiveBindings[0].collection: is given inline although there are linked collections`: func(x *flowpb.CaptureSpec) { x.InactiveBindings[0].Collection = collection() },
		`bindings[0].collectionIndex: is 2, but there are 2 linked collections`:                 func(x *flowpb.CaptureSpec) { x.Bindings[0].CollectionIndex = 2 },
	} {
		x := indirect()
		spoil(x)
		require.EqualError(t, x.InlineCollections(), want)
	}
	m := materialization()
	m.LinkedCollections = []*flowpb.CollectionSpec{collection()}
	require.EqualError(t, m.InlineCollections(), "bindings[0].collection: is given inline although there are linked collections")
}
