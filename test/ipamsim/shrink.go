package ipamsim

// Shrink looks for fewer operations that still fail, in at most tries runs: it cuts what comes after, then takes ever smaller
// pieces out. Operations keep their numbers, on which what they do depends.
func Shrink(ops []Op, fails func([]Op) bool, tries int) []Op {
	for size := len(ops) / 2; size > 0 && tries > 0; {
		shorter := false
		for at := 0; at < len(ops) && tries > 0; {
			end := min(at+size, len(ops))
			fewer := append(append([]Op(nil), ops[:at]...), ops[end:]...)
			for i := at; i < end && at < len(fewer); i++ { // what is left happens when it happened
				fewer[at].Gap += ops[i].Gap
			}
			tries--
			if len(fewer) < len(ops) && fails(fewer) {
				ops, shorter = fewer, true
			} else {
				at = end
			}
		}
		if !shorter || size > len(ops)/2 {
			size /= 2
		}
	}
	return ops
}
