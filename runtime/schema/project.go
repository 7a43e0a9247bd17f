package schema

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	flowpb "github.com/sluicedata/sluice/protocol/flow"

	"github.com/sluicedata/sluice/sdk/jsonscan"
)

// RootField is the field of the whole document.
const RootField = "flow_document"

// maxProjections bounds how many fields are inferred from one schema; more must be declared one by one.
const maxProjections = 2000

// At returns the shape at a JSON pointer, and whether something is there.
func (s *Shape) At(pointer string) (*Shape, flowpb.Inference_Exists) {
	at, exists := s, flowpb.Inference_MUST
	for _, token := range jsonscan.SplitPointer(pointer) {
		next, step := at.child(token)
		at, exists = next, weaker(exists, step)
	}
	return at, exists
}

func (s *Shape) child(token string) (*Shape, flowpb.Inference_Exists) {
	if p, ok := s.Props[token]; ok && s.Types&Object != 0 {
		if p.Required && s.Types == Object {
			return p.Shape, flowpb.Inference_MUST
		}
		return p.Shape, flowpb.Inference_MAY
	}
	if i, err := strconv.ParseUint(token, 10, 31); err == nil && s.Types&Array != 0 {
		return s.element(uint32(i))
	}
	if s.Types&Object == 0 || s.Closed {
		return &Shape{}, flowpb.Inference_CANNOT
	}
	return anything(), flowpb.Inference_IMPLICIT
}

func (s *Shape) element(i uint32) (*Shape, flowpb.Inference_Exists) {
	shape := anything()
	switch {
	case int(i) < len(s.Prefix):
		shape = s.Prefix[i]
	case s.Items != nil:
		shape = s.Items
	}
	switch {
	case s.MaxItems != nil && i >= *s.MaxItems:
		return &Shape{}, flowpb.Inference_CANNOT
	case s.Types == Array && i < s.MinItems:
		return shape, flowpb.Inference_MUST
	}
	return shape, flowpb.Inference_MAY
}

// weaker is what is known of a child whose parent exists like a.
func weaker(a, b flowpb.Inference_Exists) flowpb.Inference_Exists { return max(a, b) }

// Projections lists the fields of documents of this shape, ascending by name: the document itself, every declared
// location outside of arrays, the key's locations, and those that explicit names (field to pointer), which replace
// a field of the same name. It fails if a key location cannot exist.
func (s *Shape) Projections(key []string, explicit map[string]string) ([]*flowpb.Projection, error) {
	byField := map[string]*flowpb.Projection{RootField: {Ptr: "", Field: RootField}}
	s.collect("", byField, 0)
	for _, pointer := range key {
		name := FieldOf(pointer)
		byField[name] = &flowpb.Projection{Ptr: pointer, Field: name}
	}
	for field, pointer := range explicit {
		byField[field] = &flowpb.Projection{Ptr: pointer, Field: field, Explicit: true}
	}
	list := make([]*flowpb.Projection, 0, len(byField))
	for _, p := range byField {
		shape, exists := s.At(p.Ptr)
		p.Inference = shape.inference(exists)
		for _, pointer := range key {
			if p.Ptr == pointer {
				p.IsPrimaryKey = true
				if exists == flowpb.Inference_CANNOT {
					return nil, fmt.Errorf("the key location %q cannot exist: the schema does not allow it", pointer)
				}
			}
		}
		list = append(list, p)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Field < list[j].Field })
	return list, nil
}

func (s *Shape) collect(pointer string, into map[string]*flowpb.Projection, depth int) {
	if depth > maxDepth {
		return
	}
	for name, p := range s.Props {
		if name == "" || len(into) >= maxProjections {
			continue
		}
		at := jsonscan.JoinPointer(pointer, name)
		into[FieldOf(at)] = &flowpb.Projection{Ptr: at, Field: FieldOf(at)}
		p.Shape.collect(at, into, depth+1)
	}
}

// FieldOf is the name of the field that stands for a location if nobody chose another.
func FieldOf(pointer string) string {
	if pointer == "" {
		return RootField
	}
	return strings.TrimPrefix(pointer, "/")
}

func (s *Shape) inference(exists flowpb.Inference_Exists) *flowpb.Inference {
	inf := &flowpb.Inference{
		Types: s.Types.Names(), Title: s.Title, Description: s.Description, DefaultJson: s.Default, Secret: s.Secret,
		Exists: exists, ContentMediaType: s.ContentType,
	}
	for _, e := range s.Enum {
		inf.EnumJsonVec = append(inf.EnumJsonVec, e)
	}
	if s.Types&String != 0 {
		inf.String_ = &flowpb.Inference_String{ContentType: s.ContentType, Format: s.Format, MaxLength: s.MaxLength, ContentEncoding: s.ContentEncoding}
	}
	if s.Types&(Integer|Number) != 0 {
		inf.Numeric = &flowpb.Inference_Numeric{}
		if s.Min != nil {
			inf.Numeric.HasMinimum, inf.Numeric.Minimum = true, *s.Min
		}
		if s.Max != nil {
			inf.Numeric.HasMaximum, inf.Numeric.Maximum = true, *s.Max
		}
	}
	if s.Types&Array != 0 {
		inf.Array = &flowpb.Inference_Array{MinItems: s.MinItems}
		if s.MaxItems != nil {
			inf.Array.HasMaxItems, inf.Array.MaxItems = true, *s.MaxItems
		}
		if s.Items != nil {
			inf.Array.ItemTypes = s.Items.Types.Names()
		}
	}
	inf.Reduce = reductions[s.Reduce]
	return inf
}

var reductions = map[string]flowpb.Inference_Reduce{ //nolint:gochecknoglobals // a lookup table
	"append": flowpb.Inference_REDUCE_APPEND, "firstWriteWins": flowpb.Inference_REDUCE_FIRST_WRITE_WINS,
	"lastWriteWins": flowpb.Inference_REDUCE_LAST_WRITE_WINS, "maximize": flowpb.Inference_REDUCE_MAXIMIZE,
	"merge": flowpb.Inference_REDUCE_MERGE, "minimize": flowpb.Inference_REDUCE_MINIMIZE, "set": flowpb.Inference_REDUCE_SET,
	"sum": flowpb.Inference_REDUCE_SUM,
}

// CheckSourced refuses a schema that a connector announced for its own documents if it is open: a shape that allows
// anything says nothing, and would make every field untyped for good.
func CheckSourced(s *Shape) error {
	if s.Types == anyType {
		return errors.New("the connector announced a schema without a type: a sourced schema must be closed and typed")
	}
	if s.Types&Object != 0 && !s.Closed {
		return errors.New("the connector announced a schema that allows additional properties: a sourced schema must be closed and typed")
	}
	return nil
}
