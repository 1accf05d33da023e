package diag

var nodeCodes = []Explanation{}
