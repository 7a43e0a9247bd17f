package gtid_test

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/sluicedata/sluice/source-mysql/internal/gtid"
)

const (
	a = "00000000-0000-0000-0000-00000000000a"
	b = "00000000-0000-0000-0000-00000000000b"
)

func parse(t *testing.T, text string) *gtid.Set {
	t.Helper()
	s, err := gtid.Parse(text)
	require.NoError(t, err)
	return s
}

func TestSets(t *testing.T) {
	t.Parallel()
	require.Equal(t, a+":1-7:9,"+b+":1", parse(t, b+":1,\n "+a+":1-3:5-7:4:9").String())
	for _, c := range []struct{ x, y, minus string }{
		{a + ":1-10", a + ":3-4:7", a + ":1-2:5-6:8-10"},
		{a + ":1-10", "", a + ":1-10"},
		{a + ":1-10," + b + ":5", a + ":1-20", b + ":5"},
		{"", a + ":1", ""},
		{a + ":5-6", a + ":1-5", a + ":6"},
	} {
		x, y := parse(t, c.x), parse(t, c.y)
		require.Equal(t, c.minus, x.Minus(y).String(), "%s minus %s", c.x, c.y)
		require.Equal(t, c.minus == "", y.Contains(x))
	}
	s := parse(t, a+":1-3")
	require.False(t, s.Meets(parse(t, b+":1")))
	uuid := gtid.Source{UUID: [16]byte{15: 0xa}}
	require.True(t, s.Has(uuid, 3))
	require.False(t, s.Has(uuid, 4))
	for _, text := range []string{"x:1", a, a + ":0", a + ":5-4", a + ":1-x"} {
		_, err := gtid.Parse(text)
		require.Error(t, err, text)
	}
}

// Numbers of a server belong to the tag before them, if there is one.
func TestTags(t *testing.T) {
	t.Parallel()
	text := a + ":7:b:1:3:tag:1-2," + b + ":x_1:5"
	s := parse(t, a+":7:b:3:tag:1-2:b:1,"+b+":x_1:5")
	require.Equal(t, text, s.String())
	require.Equal(t, text, parse(t, text).String())
	require.True(t, s.Has(gtid.Source{UUID: [16]byte{15: 0xa}, Tag: "tag"}, 2))
	require.False(t, s.Has(gtid.Source{UUID: [16]byte{15: 0xa}}, 2))
	require.Equal(t, a+":tag:2", s.Minus(parse(t, a+":1-7:b:1-9:tag:1,"+b+":x_1:1-9")).String())
	s.Add(gtid.Source{UUID: [16]byte{15: 0xa}, Tag: "b"}, 4)
	newest := gtid.Source{UUID: [16]byte{15: 0xa}, Tag: "b"}
	require.Equal(t, a+":7:b:1:3-4:tag:1-2,"+b+":x_1:5", string(s.Append(nil, &newest)))
	s.Add(newest, 5)
	require.Equal(t, a+":7:b:1:3-5:tag:1-2,"+b+":x_1:5", string(s.Append(nil, &newest)))
	require.Equal(t, uint64(4<<8|1|1<<56), binary.LittleEndian.Uint64(s.Encode()))
}

// What is remembered of the text is never outdated.
func TestSetsThatGrow(t *testing.T) {
	t.Parallel()
	s := parse(t, a+":1-3:10,"+b+":1")
	ua, ub := gtid.Source{UUID: [16]byte{15: 0xa}}, gtid.Source{UUID: [16]byte{15: 0xb}}
	for _, step := range []struct {
		uuid   gtid.Source
		number int64
	}{{ua, 11}, {ua, 12}, {ub, 2}, {ub, 3}, {ua, 13}, {ua, 4}, {ua, 14}, {ub, 9}, {ub, 10}, {ua, 9}, {gtid.Source{UUID: [16]byte{1}}, 1}, {ua, 15}} {
		s.Add(step.uuid, step.number)
		require.Equal(t, s.Clone().String(), string(s.Append(nil, &step.uuid)))
	}
	require.Equal(t, a+":1-4:9-15,"+b+":1-3:9-10,01000000-0000-0000-0000-000000000000:1", s.String())
}

func TestPositions(t *testing.T) {
	t.Parallel()
	p, err := gtid.ParsePosition("1-2-7, 0-1-100")
	require.NoError(t, err)
	require.Equal(t, "0-1-100,1-2-7", p.String())
	q, err := gtid.ParsePosition("0-3-101,1-2-7")
	require.NoError(t, err)
	require.Equal(t, "0-3-101", p.Behind(q).String())
	require.Empty(t, q.Behind(p))
	state, err := gtid.ParseState("0-1-100,0-3-90")
	require.NoError(t, err)
	unknown, ahead := state.Compare(p)
	require.Equal(t, "1-2-7", unknown.String())
	require.Empty(t, ahead)
	_, ahead = state.Compare(q)
	require.Equal(t, "0-3-101", ahead.String())
	for _, text := range []string{"1-2", "a-1-1", "1-2-3-4"} {
		_, err := gtid.ParsePosition(text)
		require.Error(t, err)
	}
}
