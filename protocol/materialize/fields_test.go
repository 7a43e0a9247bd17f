package materializepb

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

func TestFastPathsUseTheNumbersOfTheDescriptors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		m    proto.Message
		want map[string]int
	}{
		{&Request_Load{}, map[string]int{"binding": fieldLoadBinding, "key_json": fieldLoadKeyJSON, "key_packed": fieldLoadKey}},
		{&Response_Loaded{}, map[string]int{"binding": fieldLoadedBinding, "doc_json": fieldLoadedDoc}},
		{&Request_Store{}, map[string]int{
			"binding": fieldStoreBinding, "key_json": fieldStoreKeyJSON, "key_packed": fieldStoreKey,
			"values_json": fieldStoreValuesJSON, "values_packed": fieldStoreValues, "doc_json": fieldStoreDoc,
			"exists": fieldStoreExists, "delete": fieldStoreDelete,
		}},
	} {
		fields := c.m.ProtoReflect().Descriptor().Fields()
		require.Equal(t, len(c.want), fields.Len(), "a new field needs a place in the fast paths")
		for i := range fields.Len() {
			require.EqualValues(t, c.want[string(fields.Get(i).Name())], fields.Get(i).Number(), fields.Get(i).FullName())
		}
	}
	request := (&Request{}).ProtoReflect().Descriptor().Fields()
	require.EqualValues(t, fieldLoad, request.ByName("load").Number())
	require.EqualValues(t, fieldStore, request.ByName("store").Number())
	require.EqualValues(t, fieldLoaded, (&Response{}).ProtoReflect().Descriptor().Fields().ByName("loaded").Number())
}
