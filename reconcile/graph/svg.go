package graph

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Sizes in SVG user units, which are pixels on a screen.
const (
	boxWidth   = 240
	lineHeight = 17
	padding    = 9
	gapY       = 14
	gapX       = 150
	margin     = 24
	header     = 64
	maxChars   = 34 // of a 12 px sans-serif line in a box
)

// fills and strokes by column; text is dark on all of them.
var (
	fills   = [columns]string{"#eef2f7", "#fdf3e1", "#e6f4ea", "#efe9f7"}
	strokes = [columns]string{"#5b6b80", "#b7791f", "#2f7d4f", "#6b4fa0"}
)

type placed struct {
	Box
	x, y, height int
}

// SVG is the picture as an image: four columns, lines from left to right.
func (g Graph) SVG() string {
	boxes, width, height := g.place()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" role="img">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n", svgText(g.Title))
	fmt.Fprintf(&b, `<text x="%d" y="%d" font-size="16" font-weight="bold" fill="#1d2733">%s</text>`+"\n", margin, margin+4, svgText(g.Title))
	for column := range columns {
		if g.count(column) > 0 {
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", columnX(column), header-10, strokes[column], columnNames[column])
		}
	}
	for _, e := range g.Edges {
		writeEdge(&b, boxes[e.From], boxes[e.To])
	}
	for _, e := range g.Edges { // above all lines
		writeLabel(&b, boxes[e.From], boxes[e.To], e.Label)
	}
	for _, x := range g.Boxes {
		writeBox(&b, boxes[x.ID])
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func columnX(column int) int { return margin + column*(boxWidth+gapX) }

// place stacks each column's boxes; shorter columns stand in the middle of the tallest.
func (g Graph) place() (boxes map[string]placed, width, height int) {
	var heights [columns]int
	for _, x := range g.Boxes {
		heights[x.Column] += boxHeight(x) + gapY
	}
	tallest := 0
	for _, h := range heights {
		tallest = max(tallest, h)
	}
	var y [columns]int
	for c := range y {
		y[c] = header + (tallest-heights[c])/2
	}
	boxes = map[string]placed{}
	for _, x := range g.Boxes {
		boxes[x.ID] = placed{Box: x, x: columnX(x.Column), y: y[x.Column], height: boxHeight(x)}
		y[x.Column] += boxHeight(x) + gapY
	}
	return boxes, columnX(columns-1) + boxWidth + margin, header + tallest + margin
}

func boxHeight(x Box) int { return 2*padding + len(x.Lines)*lineHeight - 4 }

func writeBox(b *strings.Builder, p placed) {
	fmt.Fprintf(b, `<g><rect x="%d" y="%d" width="%d" height="%d" rx="6" fill="%s" stroke="%s"/>`, p.x, p.y, boxWidth, p.height, fills[p.Column], strokes[p.Column])
	fmt.Fprintf(b, "<title>%s</title>", svgText(strings.Join(p.Lines, "\n")))
	for i, line := range p.Lines {
		weight, colour := "bold", "#1d2733"
		if i > 0 {
			weight, colour = "normal", "#4a5563"
		}
		fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="%s" fill="%s">%s</text>`, p.x+padding, p.y+padding+11+i*lineHeight, weight, colour, svgText(cut(line)))
	}
	b.WriteString("</g>\n")
}

func writeEdge(b *strings.Builder, from, to placed) {
	x1, y1 := from.x+boxWidth, from.y+from.height/2
	x2, y2 := to.x, to.y+to.height/2
	bend := (x2 - x1) / 2
	fmt.Fprintf(b, `<path d="M%d,%d C%d,%d %d,%d %d,%d" fill="none" stroke="%s" stroke-opacity="0.55"/>`+"\n", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2, strokes[to.Column])
}

// writeLabel puts a label near the end of its line, where lines have parted.
func writeLabel(b *strings.Builder, from, to placed, label string) {
	if label == "" {
		return
	}
	y := to.y + to.height/2
	if from.y+from.height/2 < to.y+to.height/2 { // the line comes from above
		y += 16
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" font-size="11" fill="#4a5563" stroke="#ffffff" stroke-width="3" paint-order="stroke">%s</text>`+"\n", to.x-6, y-4, svgText(label))
}

func cut(s string) string {
	if utf8.RuneCountInString(s) <= maxChars {
		return s
	}
	return string([]rune(s)[:maxChars-1]) + "…"
}

// svgText leaves no character that XML would read as markup or forbids.
func svgText(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == utf8.RuneError {
			return -1
		}
		return r
	}, s)
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;").Replace(s)
}
