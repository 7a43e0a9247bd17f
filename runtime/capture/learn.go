package capture

import (
	"context"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// valid tells whether a document is JSON, and looks for what is new in it.
func (s *session) valid(index int, doc []byte) bool {
	if watch := s.byIndex[index].stream.watch; watch != nil {
		return watch.Valid(doc)
	}
	return jsonscan.Valid(doc)
}

// learn makes known what is new in a stream's documents, before the log has them: whoever reads them knows by the block's version
// that there are fields to be made first. One version stands for all that a block brought.
func (s *session) learn(ctx context.Context, st *stream) error {
	if st.watch == nil {
		return nil
	}
	log := s.task.Logger.WithField("collection", st.collection)
	if st.watch.LeftOut() && !st.leftOut {
		st.leftOut = true
		log.Warn("documents have more members than can be fields, or members whose names cannot; these stay in the documents. Name those that you need in the collection's schema")
	}
	if !st.watch.News() {
		return nil
	}
	version, err := s.task.Collections.Learn(ctx, st.collection, st.watch.Learned())
	if err != nil {
		return err
	}
	if version.Number > st.block.Schema {
		st.block.Schema = version.Number
		log.WithField("version", version.Number).Info("documents have new fields, or types that their fields did not have before")
	}
	return nil
}
