/**
 * What the graphics card draws. A mark has a shape (its kind), a filling (its health) and a ring (its trust); a line is wide at
 * the caller and thin at the callee, and dashed where the calls went through a relay.
 */
import { EdgeProgram, NodeProgram, type EdgeProgramType, type NodeProgramType, type ProgramInfo } from 'sigma/rendering'
import type { EdgeDisplayData, NodeDisplayData, RenderParams } from 'sigma/types'
import { floatColor } from 'sigma/utils'
import { SHAPES, type Fill, type Ring, type Shape } from './scene'

export interface MarkData extends NodeDisplayData {
  shape: Shape
  fill: Fill
  ring: Ring
  ringColor: string
}

export interface LineData extends EdgeDisplayData {
  dashed: boolean
  /** Moved aside, because there is a line the other way. */
  aside: boolean
}

const FILLS: readonly Fill[] = ['solid', 'dot', 'stripes', 'hollow']
const RINGS: readonly Ring[] = ['none', 'dashed', 'thin', 'thick', 'double']
const { FLOAT, UNSIGNED_BYTE, TRIANGLES } = WebGLRenderingContext

const MARK_VERTEX = /* glsl */ `
attribute vec4 a_id;
attribute vec4 a_color;
attribute vec4 a_ring;
attribute vec2 a_position;
attribute float a_size;
attribute vec3 a_style;
attribute float a_angle;
uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
varying vec4 v_color;
varying vec4 v_ring;
varying vec2 v_at;
varying float v_pixel;
varying vec3 v_style;
const float bias = 255.0 / 254.0;

void main() {
  float size = a_size * u_correctionRatio / u_sizeRatio * 4.0;
  // Marks get room for the ring around them.
  vec2 offset = size * (a_style.x < 0.5 ? 1.0 : 1.8) * vec2(cos(a_angle), sin(a_angle));
  gl_Position = vec4((u_matrix * vec3(a_position + offset, 1)).xy, 0, 1);
  v_at = offset / (size / 2.0);
  v_pixel = u_correctionRatio * 2.0 / (size / 2.0);
  v_style = a_style;
  #ifdef PICKING_MODE
  v_color = a_id;
  #else
  v_color = a_color;
  #endif
  v_ring = a_ring;
  v_color.a *= bias;
  v_ring.a *= bias;
}
`

const MARK_FRAGMENT = /* glsl */ `
precision highp float;
varying vec4 v_color;
varying vec4 v_ring;
varying vec2 v_at;
varying float v_pixel;
varying vec3 v_style;

float plus(vec2 p) {
  p = abs(p);
  return min(max(p.x - 0.36, p.y - 0.92), max(p.y - 0.36, p.x - 0.92));
}

// How far outside of the shape, in radii; below 0 inside.
float outside(vec2 p, float shape) {
  if (shape < 1.5) return length(p) - 0.9;
  if (shape < 2.5) return max(abs(p.x), abs(p.y)) - 0.76;
  if (shape < 3.5) return (abs(p.x) + abs(p.y)) * 0.7071 - 0.68;
  if (shape < 4.5) return max(-p.y - 0.14, 0.866 * abs(p.x) + 0.5 * p.y) - 0.46;
  if (shape < 5.5) return max(abs(p.x) * 0.866 + abs(p.y) * 0.5, abs(p.y)) - 0.82;
  if (shape < 6.5) return plus(p);
  if (shape < 7.5) return plus(vec2(p.x + p.y, p.y - p.x) * 0.7071);
  return max(p.y - 0.14, 0.866 * abs(p.x) - 0.5 * p.y) - 0.46;
}

void main(void) {
  float shape = v_style.x, fill = v_style.y, ring = v_style.z;
  float far = outside(v_at, shape);
  if (shape < 0.5) {
    // A group: a faint disc with a border; only the border can be pointed at, so that what lies on it can be too.
    far = length(v_at) - 1.0;
    float border = max(0.012, v_pixel);
    #ifdef PICKING_MODE
    gl_FragColor = far > 0.0 || far < -4.0 * border ? vec4(0.0) : v_color;
    #else
    float inside = 1.0 - smoothstep(-v_pixel, 0.0, far);
    float line = inside * smoothstep(-2.0 * border - v_pixel, -2.0 * border, far);
    if (ring > 0.5 && ring < 1.5 && mod(atan(v_at.y, v_at.x) * 12.0, 2.0) > 1.2) line = 0.0;
    gl_FragColor = vec4(v_color.rgb, 1.0) * v_color.a * inside * (1.0 - line) + vec4(v_ring.rgb, 1.0) * line * v_ring.a;
    #endif
    return;
  }
  #ifdef PICKING_MODE
  gl_FragColor = length(v_at) > 1.3 ? vec4(0.0) : v_color;
  #else
  float inside = 1.0 - smoothstep(-v_pixel, 0.0, far);
  // The filling, with a thin outline in its colour so that the shape shows whatever is in it.
  float kept = 1.0;
  if (fill > 2.5) kept = 0.12;
  else if (fill > 1.5) kept = mod((v_at.x + v_at.y) * 2.6, 1.0) > 0.5 ? 1.0 : 0.3;
  else if (fill > 0.5) kept = length(v_at) < 0.3 ? 1.0 : 0.22;
  float outline = smoothstep(-0.12 - v_pixel, -0.12, far);
  vec4 color = vec4(v_color.rgb, 1.0) * v_color.a * max(kept, outline);
  // The ring around it.
  float from = length(v_at);
  float band = 0.0;
  float width = max(v_pixel, 0.065);
  #define RING(r) (smoothstep(width + v_pixel, width, abs(from - (r))))
  vec4 around = vec4(0.0);
  color *= inside;
  if (ring > 3.5) { width = max(0.6 * v_pixel, 0.05); band = max(RING(1.22), RING(1.55)); }
  else if (ring > 2.5) { width = max(0.9 * v_pixel, 0.13); band = RING(1.36); }
  else if (ring > 1.5) band = RING(1.3);
  else if (ring > 0.5) band = RING(1.3) * step(mod(atan(v_at.y, v_at.x) * 2.5465, 2.0), 1.1);
  // Of a mark that is a few pixels large only the filling can be told; rings would make it a blot.
  around = vec4(v_ring.rgb, 1.0) * v_ring.a * band * (1.0 - smoothstep(0.14, 0.24, v_pixel));
  gl_FragColor = color + around * (1.0 - color.a);
  #endif
}
`

const MARK_UNIFORMS = ['u_sizeRatio', 'u_correctionRatio', 'u_matrix'] as const

class Marks extends NodeProgram<(typeof MARK_UNIFORMS)[number]> {
  getDefinition() {
    return {
      VERTICES: 3,
      VERTEX_SHADER_SOURCE: MARK_VERTEX,
      FRAGMENT_SHADER_SOURCE: MARK_FRAGMENT,
      METHOD: TRIANGLES,
      UNIFORMS: MARK_UNIFORMS,
      ATTRIBUTES: [
        { name: 'a_position', size: 2, type: FLOAT },
        { name: 'a_size', size: 1, type: FLOAT },
        { name: 'a_color', size: 4, type: UNSIGNED_BYTE, normalized: true },
        { name: 'a_ring', size: 4, type: UNSIGNED_BYTE, normalized: true },
        { name: 'a_style', size: 3, type: FLOAT },
        { name: 'a_id', size: 4, type: UNSIGNED_BYTE, normalized: true },
      ],
      CONSTANT_ATTRIBUTES: [{ name: 'a_angle', size: 1, type: FLOAT }],
      CONSTANT_DATA: [[0], [(2 * Math.PI) / 3], [(4 * Math.PI) / 3]],
    }
  }

  processVisibleItem(index: number, start: number, data: NodeDisplayData): void {
    const mark = data as MarkData
    const { array } = this
    array.set([mark.x, mark.y, mark.size, floatColor(mark.color), floatColor(mark.ringColor)], start)
    array[start + 5] = SHAPES.indexOf(mark.shape)
    array[start + 6] = FILLS.indexOf(mark.fill)
    array[start + 7] = RINGS.indexOf(mark.ring)
    array[start + 8] = index
  }

  setUniforms(params: RenderParams, { gl, uniformLocations }: ProgramInfo): void {
    gl.uniform1f(uniformLocations.u_correctionRatio ?? null, params.correctionRatio)
    gl.uniform1f(uniformLocations.u_sizeRatio ?? null, params.sizeRatio)
    gl.uniformMatrix3fv(uniformLocations.u_matrix ?? null, false, params.matrix)
  }
}

const LINE_VERTEX = /* glsl */ `
attribute vec4 a_id;
attribute vec4 a_color;
attribute vec2 a_start;
attribute vec2 a_end;
attribute float a_width;
attribute float a_how;
attribute vec2 a_corner;
uniform mat3 u_matrix;
uniform float u_sizeRatio;
uniform float u_correctionRatio;
uniform float u_leastWidth;
varying vec4 v_color;
varying float v_along;
varying float v_dashed;
varying float v_half;
varying float v_across;
const float bias = 255.0 / 254.0;

void main() {
  vec2 way = a_end - a_start;
  float far = length(way);
  vec2 side = far > 0.0 ? vec2(-way.y, way.x) / far : vec2(0.0);
  float unit = u_correctionRatio / u_sizeRatio;
  float width = max(a_width, u_leastWidth * u_sizeRatio) * unit;
  // Aside of a line the other way; narrower towards the callee.
  vec2 place = mix(a_start, a_end, a_corner.x) + (a_how > 1.5 ? side * width * 1.4 : vec2(0.0));
  float pixel = 2.0 * u_correctionRatio;
  float half_ = max(0.5 * pixel, width * mix(1.0, 0.3, a_corner.x));
  gl_Position = vec4((u_matrix * vec3(place + side * (half_ + pixel) * a_corner.y, 1)).xy, 0, 1);
  v_half = half_ / pixel;
  v_across = (half_ / pixel + 1.0) * a_corner.y;
  v_along = a_corner.x * far / (2.0 * u_correctionRatio);
  v_dashed = mod(a_how, 2.0);
  #ifdef PICKING_MODE
  v_color = a_id;
  #else
  v_color = a_color;
  #endif
  v_color.a *= bias;
}
`

const LINE_FRAGMENT = /* glsl */ `
precision highp float;
varying vec4 v_color;
varying float v_along;
varying float v_dashed;
varying float v_half;
varying float v_across;
uniform float u_dash;

void main(void) {
  #ifdef PICKING_MODE
  gl_FragColor = v_color;
  #else
  if (v_dashed > 0.5 && mod(v_along, u_dash) > 0.55 * u_dash) discard;
  gl_FragColor = vec4(v_color.rgb, 1.0) * v_color.a * (1.0 - smoothstep(v_half - 0.5, v_half + 0.5, abs(v_across)));
  #endif
}
`

const LINE_UNIFORMS = ['u_matrix', 'u_sizeRatio', 'u_correctionRatio', 'u_leastWidth', 'u_dash'] as const

class Lines extends EdgeProgram<(typeof LINE_UNIFORMS)[number]> {
  getDefinition() {
    return {
      VERTICES: 6,
      VERTEX_SHADER_SOURCE: LINE_VERTEX,
      FRAGMENT_SHADER_SOURCE: LINE_FRAGMENT,
      METHOD: TRIANGLES,
      UNIFORMS: LINE_UNIFORMS,
      ATTRIBUTES: [
        { name: 'a_start', size: 2, type: FLOAT },
        { name: 'a_end', size: 2, type: FLOAT },
        { name: 'a_width', size: 1, type: FLOAT },
        { name: 'a_how', size: 1, type: FLOAT },
        { name: 'a_color', size: 4, type: UNSIGNED_BYTE, normalized: true },
        { name: 'a_id', size: 4, type: UNSIGNED_BYTE, normalized: true },
      ],
      CONSTANT_ATTRIBUTES: [{ name: 'a_corner', size: 2, type: FLOAT }],
      CONSTANT_DATA: [[0, 1], [0, -1], [1, 1], [1, 1], [0, -1], [1, -1]],
    }
  }

  processVisibleItem(index: number, start: number, from: NodeDisplayData, to: NodeDisplayData, data: EdgeDisplayData): void {
    const line = data as LineData
    const { array } = this
    array.set([from.x, from.y, to.x, to.y, data.size], start)
    array[start + 5] = (line.dashed ? 1 : 0) + (line.aside ? 2 : 0)
    array[start + 6] = floatColor(data.color)
    array[start + 7] = index
  }

  setUniforms(params: RenderParams, { gl, uniformLocations }: ProgramInfo): void {
    gl.uniformMatrix3fv(uniformLocations.u_matrix ?? null, false, params.matrix)
    gl.uniform1f(uniformLocations.u_sizeRatio ?? null, params.sizeRatio)
    gl.uniform1f(uniformLocations.u_correctionRatio ?? null, params.correctionRatio)
    gl.uniform1f(uniformLocations.u_leastWidth ?? null, params.minEdgeThickness)
    gl.uniform1f(uniformLocations.u_dash ?? null, 12)
  }
}

export const MARK_PROGRAM = Marks as unknown as NodeProgramType
export const LINE_PROGRAM = Lines as unknown as EdgeProgramType
