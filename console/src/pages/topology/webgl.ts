let drawable: boolean | undefined

/** Whether this browser can draw on the graphics card; tried once, for browsers count the tries. */
export function canDraw(): boolean {
  drawable ??= tryToDraw()
  return drawable
}

function tryToDraw(): boolean {
  try {
    const canvas = document.createElement('canvas')
    const gl = canvas.getContext('webgl2') ?? canvas.getContext('webgl')
    gl?.getExtension('WEBGL_lose_context')?.loseContext()
    return gl !== null
  } catch {
    return false
  }
}
