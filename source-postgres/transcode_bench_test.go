package main

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/sluicedata/sluice/sdk/cdc"
)

// BenchmarkTranscode is what a streamed row of the seven columns costs between the socket's buffer and the document, without
// the kernel and the core.
func BenchmarkTranscode(b *testing.B) {
	names := []string{"id", "n", "txt", "ts", "amount", "doc", "u"}
	types := []*dataType{scalars[20], scalars[23], scalars[25], scalars[1184], scalars[1700], scalars[3802], scalars[2950]}
	table := &streamed{
		id: cdc.TableID{Schema: "public", Name: "t"}, table: &cdc.Table{},
		rows: newRowPlan(cdc.TableID{Schema: "public", Name: "t"}, []string{"id"}, names, types, false),
	}
	const rows = 2000
	var data []byte
	for g := range rows {
		values := []string{
			fmt.Sprint(1_000_000 + g), fmt.Sprint(g * 7 % 100_000), fmt.Sprint("some text ", g), "2020-01-09 10:11:12.345678+00", fmt.Sprintf("%.2f", float64(g)*1.37),
			fmt.Sprintf(`{"a": %d, "b": "value %d", "c": true}`, g, g), "9e107d9d-372b-b682-6bd8-1d3542a419d6",
		}
		data = appendInsert(data, uint64(g), 7, values)
	}
	s := &stream{
		wire: &wire{buf: data}, open: true, txn: "812", source: []byte(`"ts_ms":1732176000000,"txid":"812","loc":[26505056,`),
		relations: map[uint32]*streamed{7: table},
	}
	dst := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if s.wire.r == s.wire.w {
			s.wire.r, s.wire.w = 0, len(data)
		}
		ev, err := s.Next(b.Context(), time.Second)
		if err == nil {
			dst, err = ev.Row.AppendFields(dst[:0])
		}
		if err == nil {
			dst, err = ev.Row.AppendSource(dst)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(data) / rows))
}

// appendInsert appends the message that carries an inserted row.
func appendInsert(dst []byte, at uint64, relation uint32, values []string) []byte {
	start := len(dst)
	dst = append(dst, 'd', 0, 0, 0, 0, 'w')
	dst = binary.BigEndian.AppendUint64(dst, at)
	dst = binary.BigEndian.AppendUint64(dst, at)
	dst = binary.BigEndian.AppendUint64(dst, 0)
	dst = binary.BigEndian.AppendUint32(append(dst, 'I'), relation)
	dst = binary.BigEndian.AppendUint16(append(dst, 'N'), uint16(len(values)))
	for _, v := range values {
		dst = append(binary.BigEndian.AppendUint32(append(dst, 't'), uint32(len(v))), v...)
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}
