package diag

var attachCodes = []Explanation{}
