package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sluicedata/sluice/sdk/jsonscan"
	"github.com/sluicedata/sluice/sdk/usererr"
	"github.com/sluicedata/sluice/source-kafka/internal/codec"
)

// identity is the key of a topic's documents, as far as it is in records' keys and values.
type identity struct {
	pointers       []string // but those into _meta, which are always there
	inKey, inValue bool
	find           *jsonscan.Pointers
	found          [][]byte
	// proven is the schema of the last record's key if that says that all parts of the identity are there.
	proven *codec.Schema
}

func newIdentity(collectionKey []string) *identity {
	id := &identity{}
	for _, ptr := range collectionKey {
		first, _, _ := strings.Cut(strings.TrimPrefix(ptr, "/"), "/")
		if first == metaMember {
			continue
		}
		id.pointers = append(id.pointers, ptr)
		if first == keyMember {
			id.inKey = true
		} else {
			id.inValue = true
		}
	}
	id.find = jsonscan.NewPointers(id.pointers)
	id.found = make([][]byte, id.find.Len())
	return id
}

// missing refuses records of which a half is not there that the identity is in.
func (id *identity) missing(rec *kgo.Record) error {
	switch {
	case id.inKey && rec.Key == nil:
		return &codec.BadMessage{Topic: rec.Topic, Side: codec.Key, Reason: "it has no key, and the key of the collection is in it"}
	case id.inValue && rec.Value == nil:
		return &codec.BadMessage{Topic: rec.Topic, Side: codec.Value, Reason: "it is a tombstone, and the key of the collection is in the values, which it does not have"}
	}
	return nil
}

// check refuses documents that lack a part of their identity, or have something there that cannot identify them: two of them would be
// taken for one. key is the schema that the record's key follows.
func (id *identity) check(doc []byte, rec *kgo.Record, key *codec.Schema) error {
	if len(id.pointers) == 0 || id.proven == key && key != nil {
		return nil
	}
	if key != nil && !id.inValue && id.provenBy(key) {
		id.proven = key
		return nil
	}
	id.find.Find(doc, id.found)
	for i, value := range id.found {
		problem := ""
		switch jsonscan.Kind(value) {
		case 0:
			problem = "it has nothing at %s"
		case 'n':
			problem = "it has null at %s"
		case '{', '[':
			problem = "it has an object or a list at %s"
		case '0':
			if bytes.ContainsAny(value, ".eE") {
				problem = "it has a number that is no integer at %s"
			}
		}
		if problem != "" {
			side := codec.Value
			if strings.HasPrefix(id.pointers[i]+"/", "/"+keyMember+"/") {
				side = codec.Key
			}
			return &codec.BadMessage{Topic: rec.Topic, Side: side, Reason: fmt.Sprintf(problem+", where the key of the collection is", id.pointers[i])}
		}
	}
	return nil
}

func (id *identity) provenBy(key *codec.Schema) bool {
	return !slices.ContainsFunc(id.pointers, func(ptr string) bool {
		return !slices.Contains(key.Keys, strings.TrimPrefix(ptr, "/"+keyMember))
	})
}

// checkKey is what is wrong with the key that the user chose for a binding.
func (r resource) checkKey(collection string, key []string) error {
	if len(r.Key) > 0 && !slices.Equal(r.Key, key) {
		return usererr.New(nil, "The key of the collection %s is %s, and the key in the resource of topic %s is %s. Let both be the same, or leave out the resource's.",
			collection, strings.Join(key, ", "), r.Topic, strings.Join(r.Key, ", "))
	}
	return nil
}

// checkIdentities looks at topics whose documents are identified by their values. Compacted ones lose values whose record key comes again, and
// have tombstones, which have no values. Elsewhere the order of the documents of one key is certain only if its records
// are all in one partition, which nobody can promise but who writes them.
func (r *reader) checkIdentities(ctx context.Context) error {
	var byValue []string
	for name, t := range r.topics {
		if t.documents.id.inValue && !t.gone {
			byValue = append(byValue, name)
		}
	}
	if len(byValue) == 0 {
		return nil
	}
	slices.Sort(byValue)
	details, err := r.admin.ListTopics(ctx, byValue...)
	if err != nil {
		return &askError{err}
	}
	var errs []error
	compacted := compaction(ctx, r.env.Log, r.admin, details.Sorted())
	for _, name := range byValue {
		t := r.topics[name]
		switch {
		case compacted[name]:
			errs = append(errs, usererr.New(nil, "Topic %s is compacted: it keeps the newest record of each record key, and its deletions have no value. So the key of the collection %s cannot be in the values (%s). "+
				"Use the record's key, /%s, or members of it.", name, t.Collection.Name, strings.Join(t.Collection.Key, ", "), keyMember))
		case len(details[name].Partitions) > 1:
			r.env.Log.WithField("topic", name).Warn("the key of the collection is in the records' values, and the topic has several partitions: records of one key that are not all in one partition may be captured in another order than they were written in")
		}
	}
	return usererr.Join("These topics cannot be captured by the keys of their collections:", errs)
}
