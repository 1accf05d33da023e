package diag

var sourceCodes = []Explanation{}
