package frame_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	capturepb "github.com/sluicedata/sluice/protocol/capture"
	"github.com/sluicedata/sluice/protocol/frame"
)

// A connector writes two documents in place, and the end of their transaction.
func ExampleWriter() {
	var stdout bytes.Buffer
	w := frame.NewWriter(&stdout, frame.JSON)
	for id := range 2 {
		_ = w.Append(func(dst []byte, c frame.Codec) ([]byte, error) {
			return capturepb.AppendCaptured(dst, c, 0, func(dst []byte) ([]byte, error) {
				return fmt.Appendf(dst, `{"id":%d}`, id), nil
			})
		})
	}
	_ = w.Write(&capturepb.Response{Checkpoint: &capturepb.Response_Checkpoint{}})
	_ = w.Flush() // nothing is written before
	fmt.Print(stdout.String())
	// Output:
	// {"captured":{"doc":{"id":0}}}
	// {"captured":{"doc":{"id":1}}}
	// {"checkpoint":{}}
}

// A runtime takes documents in place, and everything else through the generated types.
func ExampleReader() {
	stdin := bytes.NewBufferString(`{"opened":{}}` + "\n" + `{"captured":{"binding":1,"doc":{"id":0}}}` + "\n")
	r := frame.NewReader(stdin, frame.JSON, 0)
	var document capturepb.Response_Captured
	var other capturepb.Response
	for {
		body, err := r.Next()
		if errors.Is(err, io.EOF) {
			fmt.Println("the end, between two messages")
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		if capturepb.ParseCaptured(frame.JSON, body, &document) {
			fmt.Printf("document of binding %d: %s\n", document.GetBinding(), document.GetDocJson())
		} else if err := frame.JSON.Unmarshal(body, &other); err == nil {
			fmt.Println("opened:", other.GetOpened() != nil)
		}
	}
	// Output:
	// opened: true
	// document of binding 1: {"id":0}
	// the end, between two messages
}
