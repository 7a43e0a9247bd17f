package capturepb

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFastPathsUseTheNumbersOfTheDescriptors(t *testing.T) {
	t.Parallel()
	response := (&Response{}).ProtoReflect().Descriptor().Fields()
	captured := (&Response_Captured{}).ProtoReflect().Descriptor().Fields()
	require.EqualValues(t, fieldCaptured, response.ByName("captured").Number())
	require.EqualValues(t, fieldCapturedBinding, captured.ByName("binding").Number())
	require.EqualValues(t, fieldCapturedDoc, captured.ByName("doc_json").Number())
	require.Equal(t, 2, captured.Len(), "a new field needs a place in the fast paths")
}
