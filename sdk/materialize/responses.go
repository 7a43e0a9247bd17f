package materialize

import (
	"sync"

	"github.com/sluicedata/sluice/protocol/frame"
	materializepb "github.com/sluicedata/sluice/protocol/materialize"
)

// responses is the stream of answers. The transaction loop writes it and, for Acknowledged alone, the goroutine that
// settles the previous transaction.
type responses struct {
	mu sync.Mutex
	w  *frame.Writer
}

// send writes a message through.
func (r *responses) send(m *materializepb.Response) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.w.Write(m); err != nil {
		return err
	}
	return r.w.Flush()
}

// loaded stays in the buffer until Flushed follows. The message's document is copied.
func (r *responses) loaded(m *materializepb.Response_Loaded) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.w.Append(func(dst []byte, c frame.Codec) ([]byte, error) {
		return materializepb.AppendLoaded(dst, c, m), nil
	})
}
