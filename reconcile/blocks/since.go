package blocks

import (
	"encoding/json"
	"maps"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

// marks are the times in a block's AnnotationSince: what was there, and what is still true now.
type marks struct {
	had, has map[string]time.Time
	now      time.Time
}

// marksOf reads them. What cannot be read is forgotten: a time begins anew, which is always late enough.
func marksOf(b *v1alpha1.IPBlock, now time.Time) *marks {
	m := &marks{now: now.UTC().Truncate(time.Second)}
	if text := b.Annotations[AnnotationSince]; text != "" {
		_ = json.Unmarshal([]byte(text), &m.had)
	}
	return m
}

// since is when something was true first, as far as was seen: it is true now.
func (m *marks) since(what string) time.Time {
	at, known := m.had[what]
	if !known || at.After(m.now) {
		at = m.now
	}
	m.set(what, at)
	return at
}

// keep leaves a mark as it is: nobody looked.
func (m *marks) keep(what string) {
	if at, known := m.had[what]; known {
		m.set(what, at)
	}
}

func (m *marks) set(what string, at time.Time) {
	if m.has == nil { // almost no block has marks
		m.has = map[string]time.Time{}
	}
	m.has[what] = at
}

// changed says whether what is true differs from what the block says.
func (m *marks) changed(b *v1alpha1.IPBlock) bool {
	_, there := b.Annotations[AnnotationSince]
	return there != (len(m.has) > 0) || !maps.EqualFunc(m.had, m.has, time.Time.Equal)
}

// write puts what is true into a copy of the block.
func (m *marks) write(b *v1alpha1.IPBlock) {
	if len(m.has) == 0 {
		delete(b.Annotations, AnnotationSince)
		return
	}
	text, err := json.Marshal(m.has) // keys are sorted
	if err != nil {
		panic("blocks: times do not marshal: " + err.Error())
	}
	if b.Annotations == nil {
		b.Annotations = map[string]string{}
	}
	b.Annotations[AnnotationSince] = string(text)
}

// mark writes the marks of a block, if they changed, and says whether they did.
func (x *decider) mark(m *marks, b *v1alpha1.IPBlock) bool {
	if !m.changed(b) {
		return false
	}
	next := b.DeepCopy()
	m.write(next)
	x.act(Action{Verb: Update, Block: next, Why: "mark"})
	return true
}
