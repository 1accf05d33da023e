package model

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// Digest is "sha256:<64 hex>" over the canonical JSON of a plan: equal plans, equal digests.
func (p NodePlan) Digest() string {
	b, err := json.Marshal(p)
	if err != nil { // every field marshals; a failure is a programming error
		panic("model: plan does not marshal: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}
